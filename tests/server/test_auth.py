"""Keys are shown once, kept as hashes, and needed wherever others can reach the gateway."""

from pathlib import Path

import pytest

from server.auth import ANONYMOUS, KeyFileError, Keys
from server.errors import Forbidden, Unauthenticated


def test_only_the_hash_of_a_key_is_kept(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", open_on_loopback=False)
    secret = keys.new("amy", tenant="acme", now=1.0)
    assert secret not in (tmp_path / "keys.json").read_text()
    assert secret not in repr(keys.all())
    key = keys.authenticate(f"Bearer {secret}")
    assert (key.name, key.tenant, key.admin) == ("amy", "acme", False)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer tw-wrong", "Basic dHc6dHc=", "tw-wrong"])
def test_a_wrong_or_missing_key_is_refused(tmp_path: Path, header: str | None) -> None:
    keys = Keys(tmp_path / "keys.json", open_on_loopback=False)
    keys.new("amy")
    with pytest.raises(Unauthenticated):
        keys.authenticate(header)


def test_a_loopback_gateway_is_open_until_the_first_user_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", open_on_loopback=True)
    keys.new("admin", admin=True)
    assert keys.authenticate(None) == ANONYMOUS
    assert keys.authenticate("Bearer whatever-an-sdk-sends") == ANONYMOUS
    keys.new("amy")
    with pytest.raises(Unauthenticated):
        keys.authenticate(None)


def test_the_budget_needs_an_admin_key_even_on_loopback(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json", open_on_loopback=True)
    admin, user = keys.new("admin", admin=True), keys.new("amy")
    assert keys.authenticate_admin(f"Bearer {admin}").admin
    with pytest.raises(Forbidden):
        keys.authenticate_admin(f"Bearer {user}")
    with pytest.raises(Unauthenticated):
        keys.authenticate_admin(None)


def test_other_processes_see_new_and_revoked_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ours, theirs = Keys(path, open_on_loopback=False), Keys(path, open_on_loopback=False)
    secret = theirs.new("amy")
    ours.refresh()
    key = ours.authenticate(f"Bearer {secret}")
    assert theirs.revoke(key.id)
    assert not theirs.revoke(key.id)
    ours.refresh()
    with pytest.raises(Unauthenticated):
        ours.authenticate(f"Bearer {secret}")


def test_a_broken_key_file_says_which_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('[{"sha256": 1')
    with pytest.raises(KeyFileError, match=r"keys\.json: not a key file .* restore it or remove it"):
        Keys(path, open_on_loopback=False)
