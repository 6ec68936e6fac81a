"""An AWS account for tests: moto's S3, KMS, IAM and STS, where policies hold.

moto knows users, roles and signatures, but evaluates no condition of a policy, maps several actions to one, lets bucket
policies refuse nothing to a role, and ignores key policies. All of that is done here as AWS documents it, from the request
as it came. So tests show what the policies mean by the book; that AWS follows its book, they cannot show.
"""

import base64
import json
import re
import sys
from urllib.parse import unquote

from flask import request
from moto.core.exceptions import JsonRESTError
from moto.iam import access_control
from moto.kms.models import kms_backends
from moto.s3.models import FakeBucket, s3_backends
from moto.sts.models import STSBackend


class Refused(JsonRESTError):
    code = 400


# Access keys that were got with a code of a second factor.
MFA = set()

# Sub-resource in the query, and the action of a request for it.
OF_BUCKET = {
    ("GET", "versions"): "ListBucketVersions",
    ("GET", "uploads"): "ListBucketMultipartUploads",
    ("GET", "versioning"): "GetBucketVersioning",
    ("GET", "object-lock"): "GetBucketObjectLockConfiguration",
    ("GET", "lifecycle"): "GetLifecycleConfiguration",
    ("GET", "replication"): "GetReplicationConfiguration",
    ("GET", "policy"): "GetBucketPolicy",
    ("PUT", "versioning"): "PutBucketVersioning",
    ("PUT", "object-lock"): "PutBucketObjectLockConfiguration",
    ("PUT", "lifecycle"): "PutLifecycleConfiguration",
    ("PUT", "replication"): "PutReplicationConfiguration",
    ("PUT", "policy"): "PutBucketPolicy",
    ("DELETE", "policy"): "DeleteBucketPolicy",
    ("DELETE", "lifecycle"): "PutLifecycleConfiguration",
    ("GET", None): "ListBucket",
    ("HEAD", None): "ListBucket",
    ("DELETE", None): "DeleteBucket",
}
OF_OBJECT = {
    ("GET", "retention"): "GetObjectRetention",
    ("GET", "legal-hold"): "GetObjectLegalHold",
    ("GET", "tagging"): "GetObjectTagging",
    ("GET", "attributes"): "GetObjectAttributes",
    ("GET", "uploadId"): "ListMultipartUploadParts",
    ("GET", "versionId"): "GetObjectVersion",
    ("HEAD", "versionId"): "GetObjectVersion",
    ("GET", None): "GetObject",
    ("HEAD", None): "GetObject",
    ("PUT", "retention"): "PutObjectRetention",
    ("PUT", "legal-hold"): "PutObjectLegalHold",
    ("PUT", "tagging"): "PutObjectTagging",
    ("PUT", None): "PutObject",
    ("POST", "restore"): "RestoreObject",
    ("POST", None): "PutObject",
    ("DELETE", "uploadId"): "AbortMultipartUpload",
    ("DELETE", "versionId"): "DeleteObjectVersion",
    ("DELETE", None): "DeleteObject",
}


def of_s3():
    """Every (action, resource) that a request to S3 takes, and what conditions can ask of it."""
    bucket, _, key = unquote(request.path).lstrip("/").partition("/")
    table = OF_OBJECT if key else OF_BUCKET
    found = [a for (m, sub), a in table.items() if m == request.method and (sub is None or sub in request.args)]
    arn = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    wanted = [("s3:" + found[0], arn)]
    headers, context = request.headers, {}
    if wanted[0][0] == "s3:PutObject":
        creates = "uploads" not in request.args and "partNumber" not in request.args
        context["s3:ObjectCreationOperation"] = str(creates).lower()
        if "x-amz-tagging" in headers:
            wanted.append(("s3:PutObjectTagging", arn))
        if "x-amz-object-lock-mode" in headers:
            wanted.append(("s3:PutObjectRetention", arn))
        if source := headers.get("x-amz-copy-source"):
            name, _, version = unquote(source).lstrip("/").partition("?")
            wanted.append(("s3:GetObjectVersion" if version else "s3:GetObject", f"arn:aws:s3:::{name}"))
    for name in ["if-none-match", "if-match", "x-amz-server-side-encryption"]:
        if name in headers:
            context[f"s3:{name}"] = headers[name]
    if "prefix" in request.args:
        context["s3:prefix"] = request.args["prefix"]
    # The tests speak plain HTTP, and say themselves how it is to be taken.
    tls = headers.get("x-test-tls", "1.3")
    context["aws:SecureTransport"] = str(tls != "none").lower()
    if tls != "none":
        context["s3:TlsVersion"] = tls
    policy = s3_backends[account()]["aws"].buckets[bucket].policy
    return wanted, context, [json.loads(policy)] if policy else []


def of_kms():
    """The same for KMS, where the policy of the key has the first word."""
    body, action = json.loads(request.data), request.headers["X-Amz-Target"].partition(".")[2]
    key = body.get("KeyId") or base64.b64decode(body["CiphertextBlob"])[:36].decode()
    region = re.search(r"Credential=[^/]+/\d+/([^/]+)/", request.headers["Authorization"])[1]
    key = kms_backends[account()][region].keys[key.rpartition("/")[2]]
    context = {f"kms:EncryptionContext:{k}": v for k, v in body.get("EncryptionContext", {}).items()}
    return [("kms:" + action, key.arn)], context, [json.loads(key.policy)]


def account():
    return "123456789012"


def many(value):
    return value if isinstance(value, list) else [value]


def like(pattern, text):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text) is not None


EQUAL = {
    "StringEquals": lambda want, have: want == have,
    "StringLike": like,
    "ArnLike": like,
    "ArnEquals": like,
    "Bool": lambda want, have: want.lower() == have.lower(),
    "NumericLessThan": lambda want, have: float(have) < float(want),
    "NumericGreaterThan": lambda want, have: float(have) > float(want),
}


def holds(operator, key, wants, context):
    have = context.get(key)
    if operator == "Null":
        return many(wants)[0].lower() == str(have is None).lower()
    base = operator.removesuffix("IfExists")
    if base != operator and have is None:
        return True
    negated = base.replace("Not", "", 1)
    if negated != base:
        return have is None or not any(EQUAL[negated](want, have) for want in many(wants))
    return have is not None and any(EQUAL[base](want, have) for want in many(wants))


def applies(statement, action, resource, context):
    fits = any(like(pattern.lower(), action.lower()) for pattern in many(statement["Action"]))
    fits = fits and any(like(pattern, resource) for pattern in many(statement["Resource"]))
    conditions = statement.get("Condition", {}).items()
    return fits and all(holds(o, k, v, context) for o, pairs in conditions for k, v in pairs.items())


def names(statement, principal):
    who = statement["Principal"]
    return who == "*" or any(name in ("*", principal) for name in many(who["AWS"]))


def permitted(action, resource, context, identity, of_resource, principal):
    """Whether a request is allowed by the policies of who asks and of what is asked for, in one account."""
    own = [s["Effect"] for p in identity for s in p["Statement"] if applies(s, action, resource, context)]
    theirs = [s for p in of_resource for s in p["Statement"] if applies(s, action, resource, context)]
    root = f"arn:aws:iam::{account()}:root"
    direct = [s["Effect"] for s in theirs if names(s, principal)]
    delegated = any(s["Effect"] == "Allow" and names(s, root) for s in theirs)
    if "Deny" in own or "Deny" in direct:
        return False
    if action.startswith("kms:"):
        return "Allow" in direct or (delegated and "Allow" in own)
    return "Allow" in own or "Allow" in direct


def check_action_permitted(self, _resource):
    if not self._action.startswith(("s3:", "kms:")):
        return
    is_kms = self._action.startswith("kms:")
    wanted, context, of_resource = of_kms() if is_kms else of_s3()
    role = re.sub(r":sts:(.*):assumed-role/([^/]+)/.*", r":iam:\1:role/\2", self._access_key.arn)
    context["aws:PrincipalArn"] = role
    context["aws:MultiFactorAuthPresent"] = str(self._access_key._access_key_id in MFA).lower()
    if self._access_key._access_key_id in MFA:
        context["aws:MultiFactorAuthAge"] = "1"
    identity = [json.loads(p) if isinstance(p, str) else p for p in self._access_key.collect_policies()]
    for action, resource in wanted:
        if not permitted(action, resource, context, identity, of_resource, role):
            sys.stderr.write(f"denied: {role} {action} {resource} {context}\n")
            if is_kms:
                # moto would answer in XML, which this service does not speak.
                raise Refused("AccessDeniedException", f"{role} is not authorized to perform {action}")
            self._raise_access_denied()


assume_role = STSBackend.assume_role


def assume_role_perhaps_with_mfa(self, *args, **kwargs):
    role = assume_role(self, *args, **kwargs)
    if request.form.get("TokenCode"):
        MFA.add(role.access_key_id)
    return role


access_control.IAMRequestBase.check_action_permitted = check_action_permitted
# moto's own idea of what a bucket policy refuses.
FakeBucket.get_permission = lambda *_: access_control.PermissionResult.NEUTRAL
STSBackend.assume_role = assume_role_perhaps_with_mfa

from moto.server import main  # noqa: E402

main(sys.argv[1:])
