"""Members with a manifest that knows each one's size and SHA-256: what every file of ours is, whatever is in it."""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from trtplug.artefacts import archive
from trtplug.artefacts.malformed import Malformed, brief, fields, items, naming, need, of_type, parse, size

MANIFEST = "manifest.json"
_MAX_MANIFEST = 64 * 2**20

Parts = Callable[[], Iterable[memoryview]]
"""A member's data, made anew at each call."""


def to_json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def constant(data: bytes | memoryview) -> Parts:
    return lambda: (memoryview(data),)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_bundle(file: BinaryIO, members: Mapping[str, Parts]) -> None:
    """Writes members, the manifest being the first of them."""
    archive.write(file, [(archive.Member(name, *archive.checksum(made())), made) for name, made in members.items()])


def with_manifest(
    format: str, version: int, versions: Mapping[str, str], members: Mapping[str, Parts]
) -> Mapping[str, Parts]:
    """The members, after a manifest of them."""
    described = {}
    for name, parts in members.items():
        digest, count = hashlib.sha256(), 0
        for part in parts():
            digest.update(part)
            count += len(part)
        described[name] = {"bytes": count, "sha256": digest.hexdigest()}
    target = {name: number for name, number in versions.items() if name.startswith("tensorrt")}
    head = {"format": format, "version": version, "versions": dict(versions)}
    manifest = to_json({**head, "targets": [{**target, "system": system()}], "members": described})
    return {MANIFEST: constant(manifest), **members}


def system() -> str:
    return f"{sys.platform}-{platform.machine()}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_manifest(data: bytes, format: str, version: int, what: str) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each member, once the file is one of this format and version; `what` is how errors call it.

    Raises:
        Malformed: it is not.
    """
    manifest = of_type(parse(data), dict, "the manifest")
    need(manifest.get("format") == format, f"it is not the manifest of {what}")
    found = manifest.get("version")
    if type(found) is not int or found != version:
        made_by = brief(dict(manifest.get("versions") or {}).get("trtplug", "?"))
        raise Malformed(
            f"the file has version {brief(found)} of the format and was written by trtplug {made_by}; "
            f"this trtplug reads version {version}: install a trtplug that reads it, or compile the model again"
        )
    fields(manifest, "format", "version", "versions", "targets", "members")
    members = {}
    for name, entry in items(manifest["members"], "the members"):
        fields(entry, "bytes", "sha256")
        members[name] = size(entry["bytes"], "a size"), of_type(entry["sha256"], str, "a SHA-256")
    return members


def read_bundle(file: BinaryIO, check: Callable[[bytes], Mapping[str, tuple[int, str]]]) -> dict[str, memoryview]:
    """Every member's data but the manifest's, in memory, once all of the file is what its manifest says.

    Nothing is read again afterwards, so that a file which changes meanwhile makes no difference.

    Args:
        check: gives size and SHA-256 of each member, from the manifest.

    Raises:
        Malformed: it is damaged, foreign or of another version.
    """
    members = archive.directory(file)
    need(members[0].name == MANIFEST, f"its first member is {members[0].name!r}, not {MANIFEST!r}")
    need(members[0].size <= _MAX_MANIFEST, f"its manifest has {members[0].size} bytes")
    with naming(MANIFEST):
        expected = check(bytes(archive.read(file, members[0], archive.first_start(file))))
    names = [member.name for member in members[1:]]
    need(names == list(expected), f"its members are {names}, its manifest names {list(expected)}")
    plan = archive.check_layout(file, members)
    found = {}
    for member, start in zip(members[1:], plan.starts[1:]):
        count, digest = expected[member.name]
        if member.size != count:
            raise Malformed(f"it has {member.size} bytes, the manifest says {count}", member.name)
        data = archive.read(file, member, start)
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), digest):
            raise Malformed(
                "its SHA-256 is not the manifest's: it was changed or damaged; copy it again, or save it anew",
                member.name,
            )
        found[member.name] = data
    return found
