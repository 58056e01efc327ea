"""The smallest rights that docs/buckets.md promises, on an S3 server that enforces policies."""

import contextlib
import copy
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

from common import free_port, program, run, text

ROOT_KEYS = ("root", "root-secret")
KEYS = ("spool", "spool-secret")


@contextlib.contextmanager
def server(folder):
    """An S3 server with an account for the daemon and the bucket my-spool. Yields its URL."""
    port = free_port()
    for name in ["data", "accounts"]:
        pathlib.Path(folder, name).mkdir()
    command = [
        program("STOPOVER_TEST_VERSITYGW"), "--access", ROOT_KEYS[0], "--secret", ROOT_KEYS[1],
        "--region", "us-east-1", "--port", f"127.0.0.1:{port}", "--health", "/health",
        "--iam-dir", f"{folder}/accounts", "posix", f"{folder}/data",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, "the S3 server does not start"
                time.sleep(0.1)
        signed("PUT", f"{url}/my-spool")
        created = run(
            command[0], "admin", "--access", ROOT_KEYS[0], "--secret", ROOT_KEYS[1],
            "--endpoint-url", url, "create-user", "--access", KEYS[0], "--secret", KEYS[1],
            "--role", "user",
        )  # fmt: skip
        assert created[0] == 0, created
        yield url
    finally:
        process.terminate()
        process.wait(30)


def signed(method, url, body=""):
    """A request of the owner, with AWS's signature, version 4."""
    parts, now = urllib.parse.urlsplit(url), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(body.encode()).hexdigest()
    headers = {"host": parts.netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    query = f"{parts.query}=" if parts.query else ""
    canonical = "\n".join([method, parts.path, query, lines, names, digest])
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + ROOT_KEYS[1]).encode()
    for part in [*scope.split("/"), f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashed}"]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"Credential={ROOT_KEYS[0]}/{scope}"
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={key.hex()}"
    )
    request = urllib.request.Request(url, body.encode() or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30):
        pass


def grant(url, policy):
    """Gives the daemon's account these rights, and no others."""
    policy = copy.deepcopy(policy)
    for statement in policy["Statement"]:
        statement["Principal"] = {"AWS": [KEYS[0]]}
    signed("PUT", f"{url}/my-spool?policy", json.dumps(policy))


def environment(url):
    options = {
        "URI": "s3://my-spool/stopover",
        "NAME": "my-spool",
        "ENDPOINT": url,
        "REGION": "us-east-1",
        "ALLOW_HTTP": "true",
        "PATH_STYLE": "true",
        "ACCESS_KEY_ID": KEYS[0],
        "SECRET_ACCESS_KEY": KEYS[1],
    }
    named = {f"STOPOVER_BASE_DIRECTORIES__0__{key}": value for key, value in options.items()}
    return {"PATH": os.environ["PATH"], "STOPOVER_SERVER__LISTEN": "127.0.0.1:0", **named}


def status(method, url, token, body=None):
    """The status of the answer to a request with a token."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def life_of_an_exchange(daemon, exchange="q-1", reader=None):
    """Announces, writes, finishes, reads (through another daemon, if given) and closes. Returns
    what was read."""

    def request(method, path, body=b"", kind="application/json", at=daemon):
        url = f"{at}/v1/exchanges/{exchange}{path}"
        request = urllib.request.Request(url, body or None, method=method)
        request.add_header("Content-Type", kind)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    request("PUT", "", b'{"partitions": 1, "ordered": false}')
    request("POST", "/sinks/0/0/pages?partition=0", b"a page", "application/octet-stream")
    request("POST", "/sinks/0/0/finish")
    read = request("GET", "/partitions/0", at=reader or daemon)
    request("DELETE", "")
    return read


def without(policy, action):
    """The policy without one action."""
    policy = copy.deepcopy(policy)
    kept = []
    for statement in policy["Statement"]:
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        statement["Action"] = [other for other in actions if other != action]
        kept += [statement] if statement["Action"] else []
    policy["Statement"] = kept
    return policy


def shared(policy, page):
    """The policy for a bucket with other objects, as the page changes the one above it."""
    policy = copy.deepcopy(policy)
    listing, objects = policy["Statement"]
    suffix = re.search(r"`arn:aws:s3:::shared(/\S+)`", page).group(1)
    objects["Resource"] = listing["Resource"] + suffix
    condition = re.search(r'^"Condition": (\{.*\})$', page, re.M).group(1)
    listing["Condition"] = json.loads(condition)
    return policy


def elsewhere(policy):
    """The policy of a shared bucket, whose condition names another prefix."""
    return json.loads(json.dumps(policy).replace('"stopover/*"', '"other/*"'))


def problems_with(env):
    """What does not work for a daemon with these rights."""
    binary = program("STOPOVER_BINARY")
    daemon = subprocess.Popen(
        [binary, "serve"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = daemon.stdout.readline().split()[2]
        if life_of_an_exchange(address) != b"a page":
            yield "another page was read than written"
    except urllib.error.HTTPError as error:
        yield error.read().decode()
    finally:
        daemon.terminate()
        daemon.wait(60)
    checked = run(binary, "check", env=env)
    if checked[0] != 0:
        yield f"stopover check fails: {checked[1]}{checked[2]}"


def smallest_rights_suffice_and_each_is_needed():
    page = re.sub(r"^    ", "", text("docs/buckets.md"), flags=re.M)
    policy = json.loads(text("deploy/policies/s3.json"))
    if text("deploy/policies/s3.json").strip() not in page:
        yield "docs/buckets.md shows another policy than deploy/policies/s3.json"
    actions = re.findall(r'"s3:(\w+)"', text("deploy/policies/s3.json"))
    binary = program("STOPOVER_BINARY")
    with tempfile.TemporaryDirectory() as folder, server(folder) as url:
        env = environment(url)
        for name, rights in {"smallest": policy, "shared": shared(policy, page)}.items():
            grant(url, rights)
            for problem in problems_with(env):
                yield f"with the {name} rights: {problem}"
        # Without this, the rights of a shared bucket would also pass on a server that ignores
        # conditions.
        grant(url, elsewhere(shared(policy, page)))
        if run(binary, "check", env=env)[0] == 0:
            yield "stopover check passes with the rights on another prefix"
        for action in actions:
            grant(url, without(policy, f"s3:{action}"))
            checked = run(binary, "check", env=env)
            if checked[0] == 0:
                yield f"stopover check passes without s3:{action}"
            if os.environ.get("STOPOVER_TEST_VERBOSE"):
                print(action, checked[1].splitlines()[-3:])
