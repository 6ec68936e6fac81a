"""A KMS for tests: moto's, with the two refusals that it lacks (a key that is disabled, and one that
is about to be deleted), and with one policy: who signs as `backup-host` may only make data keys. That
bkp handles these refusals is what they show, not how AWS words them.
"""

import sys

from flask import request
from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend


class Refused(JsonRESTError):
    code = 400


REFUSALS = {
    "Disabled": ("DisabledException", "is disabled."),
    "PendingDeletion": ("KMSInvalidStateException", "is pending deletion."),
}


def check(backend, name):
    try:
        key = backend.keys[backend.get_key_id(backend.get_key_id_from_alias(name) or name)]
    except KeyError:
        return
    if key.key_state in REFUSALS:
        code, why = REFUSALS[key.key_state]
        raise Refused(code, f"{key.arn} {why}")


def guard(method, name_of):
    unguarded = getattr(KmsBackend, method)

    def guarded(self, *args, **kwargs):
        signer = request.headers.get("Authorization", "")
        if method == "decrypt" and "Credential=backup-host/" in signer:
            raise Refused("AccessDeniedException", "backup-host is not authorized to do that")
        check(self, name_of(kwargs))
        return unguarded(self, *args, **kwargs)

    setattr(KmsBackend, method, guarded)


guard("generate_data_key", lambda kwargs: kwargs["key_id"])
# The id of its key is the beginning of a ciphertext of moto's.
guard("decrypt", lambda kwargs: kwargs["ciphertext_blob"][:36].decode("ascii", "replace"))

from moto.server import main  # noqa: E402

main(sys.argv[1:])
