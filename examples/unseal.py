#!/usr/bin/env python3
"""Opens what bkp sealed, without bkp: Python 3 and OpenSSL's libcrypto are all it needs.

    unseal.py (--key FILE | --passphrase FILE | --kms FILE | --age FILE) [--object ID/NAME] OBJECT > OUT
    unseal.py (--key FILE | --passphrase FILE | --kms FILE | --age FILE) --manifest FILE

--kms takes what KMS decrypted `encrypted_key` to, in base64; bkp-format(5) has the command. --age takes an
identity file and runs `age -d`. The first form writes the plaintext (then `zstd -d`, `tar -x`) and never a byte that did not
authenticate; the second checks a manifest's MAC. Exit code 0 means all of it was right. After
another one, what was written is authentic but not the whole: throw it away. Without --object, the
name the object was sealed as is printed: compare it with the one you wanted.
"""
import argparse, base64, ctypes, hashlib, hmac, json, re, subprocess, sys

CRYPTO = ctypes.CDLL("libcrypto.so.3")
for name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
    getattr(CRYPTO, name).restype = ctypes.c_void_p
CONTEXT = ctypes.c_void_p(CRYPTO.EVP_CIPHER_CTX_new())
AES_256_GCM = ctypes.c_void_p(CRYPTO.EVP_aes_256_gcm())
SET_TAG, TAG, SEGMENT = 0x11, 16, 1 << 20


def fail(reason):
    sys.exit("unseal: " + reason)


def decrypt(key, nonce, sealed, aad=b""):
    """The plaintext of AES-256-GCM, or None if it does not authenticate."""
    text, tag = sealed[:-TAG], sealed[-TAG:]
    plain, count = ctypes.create_string_buffer(len(text) + TAG), ctypes.c_int()
    if len(tag) != TAG or CRYPTO.EVP_DecryptInit_ex(CONTEXT, AES_256_GCM, None, key, nonce) != 1:
        return None
    CRYPTO.EVP_DecryptUpdate(CONTEXT, None, ctypes.byref(count), aad, len(aad))
    CRYPTO.EVP_DecryptUpdate(CONTEXT, plain, ctypes.byref(count), text, len(text))
    CRYPTO.EVP_CIPHER_CTX_ctrl(CONTEXT, SET_TAG, TAG, tag)
    ok = CRYPTO.EVP_DecryptFinal_ex(CONTEXT, ctypes.create_string_buffer(TAG), ctypes.byref(count))
    return plain.raw[: len(text)] if ok == 1 else None


def hkdf(key, salt, info):
    """One block of HKDF-SHA256 (RFC 5869)."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), info + b"\x01", "sha256")


def unbase64(text):
    return base64.b64decode(text, validate=True)


def data_key(recipients, backup_id, args):
    """Opens the first wrapped key that fits the key at hand."""
    secret = open(args.key or args.passphrase or args.kms or args.age, "rb").read()
    if args.kms:
        key = unbase64(secret.strip())
        if len(key) != 32:
            fail(args.kms + " does not hold the base64 of 32 bytes")
    if args.key:
        line = re.search(rb"^\s*BKP-KEY-1-(\S+)\s*$", secret, re.MULTILINE)
        key = unbase64(line[1]) if line else b""
        if len(key) != 32:
            fail(args.key + " is not a key file")
        key_id = hashlib.sha256(b"bkp key id" + key).hexdigest()[:16]
    for recipient in recipients:
        if args.key and (recipient["kind"], recipient["id"]) == ("file", key_id):
            wrapping = key
        elif args.passphrase and recipient["kind"] == "passphrase":
            phrase, rounds = re.sub(rb"\r?\n\Z", b"", secret), recipient["rounds"]
            if recipient["kdf"] != "pbkdf2-hmac-sha256" or not 600_000 <= rounds <= 10_000_000:
                fail("the passphrase's parameters are not acceptable")
            wrapping = hashlib.pbkdf2_hmac("sha256", phrase, unbase64(recipient["salt"]), rounds)
        elif args.kms and recipient["kind"] == "kms":
            wrapping = key
        elif args.age and recipient["kind"] == "age":
            command = ["age", "-d", "-i", args.age]
            opened = subprocess.run(command, input=unbase64(recipient["wrapped"]), stdout=subprocess.PIPE)
            if opened.returncode == 0 and len(opened.stdout) == 32:
                return opened.stdout
            continue
        else:
            continue
        wrapped, aad = unbase64(recipient["wrapped"]), b"bkp wrap 1" + backup_id.encode()
        opened = decrypt(wrapping, wrapped[:12], wrapped[12:], aad)
        if opened is not None and len(opened) == 32:
            return opened
    fail("this key does not open the backup")


def unseal(stream, out, args):
    start = stream.read(12)
    if len(start) < 12 or start[:8] != b"BKPSEAL1":
        fail("not a sealed object")
    length = int.from_bytes(start[8:], "little")
    text = stream.read(length) if length <= 1 << 20 else fail("the header is too long")
    if len(text) < length:
        fail("cut within the header")
    header = json.loads(text)
    if (header["v"], header["alg"], header["segment_bytes"]) != (1, "aes256-gcm", SEGMENT):
        fail("not format 1")
    if args.object not in (None, header["object"]):
        fail("it was sealed as " + header["object"])
    key = data_key(header["recipients"], header["object"].split("/")[0], args)
    info = b"bkp seal 1" + hashlib.sha256(start + text).digest()
    salt = unbase64(header["salt"])
    if len(salt) != 32:
        fail("the salt is not 32 bytes")
    key, index, last, sealed = hkdf(key, salt, info), 0, False, b""
    while not last:
        # One byte more than a segment tells whether it is the last one.
        sealed += stream.read(SEGMENT + TAG + 1 - len(sealed))
        last = len(sealed) <= SEGMENT + TAG
        nonce = index.to_bytes(11, "big") + bytes([last])
        plain = decrypt(key, nonce, sealed[: SEGMENT + TAG])
        if plain is None or (index > 0 and not plain):
            fail(f"segment {index} does not authenticate")
        out.write(plain)
        index, sealed = index + 1, sealed[SEGMENT + TAG :]
    out.flush()
    if args.object is None:
        print("unseal: opened " + header["object"], file=sys.stderr)


def check_manifest(content, args):
    manifest = json.loads(content)
    mac = re.search(rb'(?:"signature":\s*"([0-9a-f]{128})",\s*)?"mac":\s*"([0-9a-f]{64})"\s*}\s*\Z', content)
    zeroed = bytearray(content) if mac else fail("no MAC")
    for start, end in mac.regs[1:]:
        zeroed[start:end] = b"0" * (end - start)
    key = hkdf(data_key(manifest["keys"], manifest["id"], args), b"", b"bkp manifest 1")
    if not hmac.compare_digest(hmac.new(key, zeroed, "sha256").hexdigest().encode(), mac[2]):
        fail("the manifest is not authentic")
    print("unseal: the manifest is authentic", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    secret = parser.add_mutually_exclusive_group(required=True)
    secret.add_argument("--key", metavar="FILE", help="a key file of bkp")
    secret.add_argument("--age", metavar="FILE", help="an identity file of age")
    secret.add_argument("--kms", metavar="FILE", help="a file with what KMS decrypted, base64")
    secret.add_argument("--passphrase", metavar="FILE", help="a file that holds the passphrase")
    parser.add_argument("--object", metavar="ID/NAME", help="refuse an object of another name")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--manifest", metavar="FILE", help="check this manifest's MAC")
    what.add_argument("sealed", metavar="OBJECT", nargs="?", help="the sealed object")
    args = parser.parse_args()
    try:
        with open(args.manifest or args.sealed, "rb") as stream:
            if args.manifest:
                check_manifest(stream.read(), args)
            else:
                unseal(stream, sys.stdout.buffer, args)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        fail(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
