"""API keys: made once, shown once, kept as SHA-256 hashes in `keys.json` of the state directory.

Keys are 256 random bits, so a plain hash is as strong as a slow one and costs the hot path a microsecond.
"""

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from server.errors import Forbidden, Unauthenticated

PREFIX = "tw-"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; the key itself is not."""

    id: str
    sha256: str
    name: str
    admin: bool = False
    tenant: str = ""
    created_at: float = 0.0


ANONYMOUS = Key(id="", sha256="", name="anonymous")


class KeyFileError(Exception):
    """keys.json cannot be read or written."""


class Keys:
    """The keys of one state directory. Reads the file again when it changes, so `tw key new` needs no restart."""

    def __init__(self, path: Path, *, open_on_loopback: bool) -> None:
        self._path = path
        self._open = open_on_loopback
        self._stamp: tuple[int, int] | None = None
        self._by_hash: dict[str, Key] = {}
        self.required = not open_on_loopback
        """Whether requests need a key: always, but on a loopback address while only admin keys exist."""
        self.refresh()

    def all(self) -> list[Key]:
        return list(self._by_hash.values())

    def refresh(self) -> None:
        """Raises KeyFileError where the file exists and is not readable as keys."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._take(None, {})
            return
        stamp = (stat.st_mtime_ns, stat.st_ino)
        if stamp == self._stamp:
            return
        try:
            rows = json.loads(self._path.read_text())
            by_hash = {row["sha256"]: Key(**row) for row in rows}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise KeyFileError(
                f"{self._path}: not a key file ({type(error).__name__}); restore it or remove it"
            ) from None
        self._take(stamp, by_hash)

    def _take(self, stamp: tuple[int, int] | None, by_hash: dict[str, Key]) -> None:
        self._stamp, self._by_hash = stamp, by_hash
        self.required = not self._open or any(not key.admin for key in by_hash.values())

    def new(self, name: str, *, admin: bool = False, tenant: str = "", now: float | None = None) -> str:
        """Makes a key, stores its hash, and returns the key: the only time it is seen."""
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(
            id="key_" + secrets.token_hex(6),
            sha256=_hash(secret),
            name=name,
            admin=admin,
            tenant=tenant,
            created_at=time.time() if now is None else now,
        )
        self.refresh()
        self._write([*self.all(), key])
        return secret

    def revoke(self, key_id: str) -> bool:
        self.refresh()
        left = [key for key in self.all() if key.id != key_id]
        if len(left) == len(self._by_hash):
            return False
        self._write(left)
        return True

    def authenticate(self, authorization: str | None) -> Key:
        """Raises Unauthenticated unless the header holds a known key, or none is needed."""
        if authorization is None:
            if self.required:
                raise Unauthenticated("No API key. Send it as `Authorization: Bearer tw-…`.")
            return ANONYMOUS
        scheme, _, secret = authorization.partition(" ")
        digest = _hash(secret.strip()) if scheme.lower() == "bearer" else ""
        key = self._by_hash.get(digest)
        # The lookup is by hash of 256 random bits; the compare keeps its time independent of where digests differ.
        if key is not None and hmac.compare_digest(key.sha256, digest):
            return key
        if not self.required:
            return ANONYMOUS  # official SDKs must send some key; on an open loopback gateway any will do
        raise Unauthenticated("This API key is not known here.")

    def authenticate_admin(self, authorization: str | None) -> Key:
        if authorization is None:
            raise Unauthenticated("This needs the admin key. Send it as `Authorization: Bearer tw-…`.")
        key = self.authenticate(authorization)
        if not key.admin:
            raise Forbidden("This needs the admin key.")
        return key

    def _write(self, keys: list[Key]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".keys-")
            with os.fdopen(handle, "w") as file:
                json.dump([asdict(key) for key in keys], file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except OSError as error:
            raise KeyFileError(f"{self._path}: cannot be written: {error.strerror}") from None
        self._stamp = None
        self.refresh()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
