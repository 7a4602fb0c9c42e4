"""moto's server, with what it leaves out or gets wrong of what S3 asks of a policy. Run with moto_server's arguments.

As on S3, and not as in moto alone:
- a bulk delete needs s3:DeleteObject on each of its keys, not on the bucket; if one is denied, all are here;
- whoever may not s3:ListBucket is told 403, not 404, of an object that is not there;
- a copy needs s3:GetObject on its source, a write with If-Match on what it replaces;
- a statement's Condition on s3:prefix is heeded. Any other condition fails the request, for nothing here knows it.
"""

import threading
from fnmatch import fnmatchcase
from urllib.parse import unquote

import xmltodict
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.access_control import IAMPolicyStatement, PermissionResult
from moto.server import main

authorize = ActionAuthenticatorMixin._authenticate_and_authorize_s3_action
is_permitted = IAMPolicyStatement.is_action_permitted
current = threading.local()  # .prefix: that of the list under way


def needed(response, action, bucket_name, key):
    """The actions a request needs, each with the key it needs it on."""
    if action == "DeleteObject" and key is None:
        named = xmltodict.parse(response.body, strip_whitespace=False)["Delete"]["Object"]
        return [(action, entry["Key"]) for entry in (named if isinstance(named, list) else [named])]
    needs = [(action, key)]
    if action == "GetObject" and key not in response.backend.get_bucket(bucket_name).keys:
        needs.append(("ListBucket", None))
    if action == "PutObject" and "x-amz-copy-source" in response.headers:
        source = unquote(response.headers["x-amz-copy-source"]).lstrip("/")
        needs.append(("GetObject", source.partition("/")[2]))
    if action == "PutObject" and "If-Match" in response.headers:
        needs.append(("GetObject", key))
    return needs


def authorize_all(self, bucket_name=None, key_name=None):
    action = self.data["Action"]
    current.prefix = self.querystring.get("prefix", [""])[0] if action == "ListBucket" else None
    try:
        for self.data["Action"], key in needed(self, action, bucket_name, key_name):
            authorize(self, bucket_name=bucket_name, key_name=key)
    finally:
        self.data["Action"] = action


def holds(operator, values):
    """Whether a condition of a statement holds; one on the prefix does not where there is no list."""
    if operator not in ("StringEquals", "StringLike") or set(values) != {"s3:prefix"}:
        raise NotImplementedError(f"the condition {operator} on {sorted(values)}")
    allowed = values["s3:prefix"]
    allowed = allowed if isinstance(allowed, list) else [allowed]
    prefix = getattr(current, "prefix", None)
    if prefix is None:
        return False
    return any(fnmatchcase(prefix, value) if operator == "StringLike" else prefix == value for value in allowed)


def is_permitted_under_conditions(self, action, *more):
    conditions = self._statement.get("Condition")
    if not conditions:
        return is_permitted(self, action, *more)
    if not self._check_element_matches("Action", action):
        return PermissionResult.NEUTRAL
    if not all(holds(operator, values) for operator, values in conditions.items()):
        return PermissionResult.NEUTRAL
    rest = {name: value for name, value in self._statement.items() if name != "Condition"}
    return is_permitted(IAMPolicyStatement(rest), action, *more)


ActionAuthenticatorMixin._authenticate_and_authorize_s3_action = authorize_all
IAMPolicyStatement.is_action_permitted = is_permitted_under_conditions

if __name__ == "__main__":
    main()
