"""Sets up the account of `server.py` as examples/aws says, and tries what its roles may do.

account.py PORT set-up EXAMPLES       makes bucket, key and roles; from then on policies hold. Prints credentials by role
account.py PORT try ROLE CREDENTIALS  tries what a thief would; prints what was refused, and what was not
"""

import json
import pathlib
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PORT, COMMAND = sys.argv[1:3]
URL, REGION, BUCKET = f"http://127.0.0.1:{PORT}", "eu-central-1", "acme-backups"
OLD = "prod/doctor/old"


def client(service, key="admin", secret="admin", token=None, tls=None):
    made = boto3.client(service, endpoint_url=URL, region_name=REGION, aws_access_key_id=key,
                        aws_secret_access_key=secret, aws_session_token=token,
                        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}))
    if tls:
        made.meta.events.register("before-sign", lambda request, **_: request.headers.add_header("x-test-tls", tls))
    return made


def set_up(folder):
    s3, kms, iam, sts = (client(service) for service in ["s3", "kms", "iam", "sts"])
    names = {"111122223333": "123456789012"}

    def example(name):
        text = (pathlib.Path(folder) / name).read_text()
        for placeholder, value in names.items():
            text = text.replace(placeholder, value)
        return text

    of_key = json.loads(example("key-policy.json"))
    for statement in list(of_key["Statement"]):
        # The role with the variant of a policy is one more here.
        if "bkp-read" in json.dumps(statement["Principal"]):
            of_key["Statement"].append(json.loads(json.dumps(statement).replace("bkp-read", "bkp-read-mfa")))
        for roles in statement.get("Condition", {}).get("ArnNotEquals", {}).values():
            roles.append("arn:aws:iam::123456789012:role/bkp-read-mfa")
    key = kms.create_key(Policy=json.dumps(of_key))["KeyMetadata"]
    names["arn:aws:kms:eu-central-1:123456789012:key/KEY-ID"] = key["Arn"]
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=BUCKET, Key=OLD, Body=b"of somebody else's")
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=json.loads(example("encryption.json")))
    s3.put_bucket_replication(Bucket=BUCKET, ReplicationConfiguration=json.loads(example("replication.json")))
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration=json.loads(example("lifecycle.json")))
    s3.put_bucket_policy(Bucket=BUCKET, Policy=example("bucket-policy.json"))
    anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    roles = {}

    def assume(name, role, **more):
        arn = f"arn:aws:iam::123456789012:role/{role}"
        got = sts.assume_role(RoleArn=arn, RoleSessionName="test", **more)["Credentials"]
        roles[name] = [got["AccessKeyId"], got["SecretAccessKey"], got["SessionToken"]]

    for name in ["append", "read", "read-mfa", "prune", "other"]:
        text = json.dumps(anything) if name == "other" else example(name + ".json")
        iam.create_role(RoleName=f"bkp-{name}", AssumeRolePolicyDocument="{}")
        iam.put_role_policy(RoleName=f"bkp-{name}", PolicyName="bkp", PolicyDocument=text)
        assume(name, f"bkp-{name}")
    assume("read-with-mfa", "bkp-read-mfa", SerialNumber="arn:aws:iam::123456789012:mfa/x", TokenCode="123456")
    kind = {"Content-Type": "text/plain"}
    request = urllib.request.Request(URL + "/moto-api/reset-auth", data=b"0", headers=kind, method="POST")
    urllib.request.urlopen(request).read()
    print(json.dumps({"key": key["Arn"], "roles": roles}))


def attempts(secret):
    s3, kms = client("s3", *secret), client("kms", *secret)
    def in_parts(key, **condition):
        at = {"Bucket": BUCKET, "Key": key}
        upload = s3.create_multipart_upload(**at)["UploadId"]
        part = s3.upload_part(**at, UploadId=upload, PartNumber=1, Body=b"x")
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        try:
            s3.complete_multipart_upload(**at, UploadId=upload, MultipartUpload=parts, **condition)
        finally:
            if not condition:
                s3.abort_multipart_upload(**at, UploadId=upload)

    def delete_version():
        version = s3.head_object(Bucket=BUCKET, Key=OLD)["VersionId"]
        s3.delete_object(Bucket=BUCKET, Key=OLD, VersionId=version)

    def decrypt():
        made = client("kms", *CREDENTIALS["append"]).generate_data_key(
            KeyId=KEY, KeySpec="AES_256", EncryptionContext={"backup_id": "x", "source": "books"})
        kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"backup_id": "x", "source": "books"})

    put = lambda **more: s3.put_object(Bucket=BUCKET, Body=b"x", **{"Key": OLD, **more})  # noqa: E731
    return {
        "list": lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="prod/"),
        "list what is not bkp's": lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix=""),
        "read": lambda: s3.get_object(Bucket=BUCKET, Key=OLD),
        "overwrite": put,
        "overwrite in parts": lambda: in_parts(OLD),
        "overwrite by a copy": lambda: s3.copy_object(Bucket=BUCKET, Key=OLD, CopySource=f"{BUCKET}/{OLD}", StorageClass="GLACIER"),
        "replace if it matches": lambda: put(IfMatch='"0"'),
        "add": lambda: put(Key=f"prod/doctor/{secret[0]}", IfNoneMatch="*"),
        "add in parts": lambda: in_parts(f"prod/doctor/{secret[0]}-parts", IfNoneMatch="*"),
        "add elsewhere": lambda: put(Key="elsewhere", IfNoneMatch="*"),
        "add with another encryption": lambda: put(Key="prod/doctor/sse", IfNoneMatch="*", ServerSideEncryption="AES256"),
        "add in the clear": lambda: client("s3", *secret, tls="none").put_object(Bucket=BUCKET, Key="prod/tls", Body=b"", IfNoneMatch="*"),
        "add over old TLS": lambda: client("s3", *secret, tls="1.1").put_object(Bucket=BUCKET, Key="prod/tls", Body=b"", IfNoneMatch="*"),
        "read over old TLS": lambda: client("s3", *secret, tls="1.1").get_object(Bucket=BUCKET, Key=OLD),
        "delete version": delete_version,
        "delete": lambda: s3.delete_object(Bucket=BUCKET, Key=OLD),
        "suspend versioning": lambda: s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"}),
        "expire everything": lambda: s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [
            {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}),
        "make a data key": lambda: kms.generate_data_key(KeyId=KEY, KeySpec="AES_256", EncryptionContext={"backup_id": "x", "source": "books"}),
        "make a data key for another source": lambda: kms.generate_data_key(KeyId=KEY, KeySpec="AES_256", EncryptionContext={"source": "other"}),
        "decrypt": decrypt,
        "delete the key": lambda: kms.schedule_key_deletion(KeyId=KEY, PendingWindowInDays=7),
    }


def outcome(attempt):
    try:
        attempt()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return "refused" if code in ("AccessDenied", "AccessDeniedException", "403") else code
    return "done"


if COMMAND == "set-up":
    set_up(sys.argv[3])
else:
    told = json.loads(pathlib.Path(sys.argv[4]).read_text())
    KEY, CREDENTIALS = told["key"], told["roles"]
    print(json.dumps({name: outcome(attempt) for name, attempt in attempts(CREDENTIALS[sys.argv[3]]).items()}))
