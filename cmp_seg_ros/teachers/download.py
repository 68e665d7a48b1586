"""Downloads the weights of a teacher: resumes, and checks what came against a checksum."""

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any

from cmp_seg_ros import outputs
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.teachers.base import Card, WeightFile, folder

PART = ".part"  # of files that are not whole yet
BLOCK = 1 << 20  # bytes
PATIENCE = 30  # seconds without an answer
GONE, NOT_SATISFIABLE, PARTIAL = 404, 416, 206  # HTTP status


def missing(card: Card) -> list[str]:
    """Names of the files of a teacher that are not here; those cut off are marked so."""
    found = []
    for file in card.files:
        if not _is_here(card, file):
            cut = any(_part(file.path(card, name)).is_file() for name in (file.name, *file.instead))
            found.append(f"{file.name} (cut off)" if cut else file.name)
    return found


def fetch(card: Card, progress: Callable[[str, int, int], None] = lambda name, done, total: None) -> Path:
    """Download the files of a teacher that are not here; returns where the weights lie.

    Args:
        progress: called with the name of a file, the bytes that are here and those that it has (0: not known).

    Raises:
        UserError: there is no such file, no network, no space; or the checksum differs. Parts stay, for the next run.
    """
    if not card.files:
        raise UserError(f"teacher {card.name} has no weights to fetch: {card.source}")
    target = folder() / card.file
    with outputs.writing(target if len(card.files) > 1 else target.parent):
        for file in card.files:
            if not _is_here(card, file):
                _fetch_file(card, file, progress)
    return target


def _is_here(card: Card, file: WeightFile) -> bool:
    return any(file.path(card, name).is_file() for name in (file.name, *file.instead))


def _fetch_file(card: Card, file: WeightFile, progress: Callable[[str, int, int], None]) -> None:
    """The file, or else the first of those that may stand in its place."""
    names = (file.name, *file.instead)
    for name in names:
        url = file.url(name)
        try:
            _download(url, file.path(card, name), file.sha256, partial(progress, name))
            return
        except urllib.error.HTTPError as error:
            if error.code != GONE or name == names[-1]:
                raise UserError(f"{url} answers {error.code} {error.reason}; get it by hand: {card.source}") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"{url} cannot be reached ({reason}); run the command again to go on") from error


def _download(url: str, path: Path, sha256: str, progress: Callable[[int, int], None]) -> None:
    """Raises UserError if the content is not as its checksum says, and the errors of urllib."""
    part = _part(path)
    here = part.stat().st_size if part.is_file() else 0
    try:
        response, headers = _open(url, here)
    except urllib.error.HTTPError as error:
        if error.code != NOT_SATISFIABLE:
            raise
        here = 0  # what is here is not of this file
        response, headers = _open(url, here)
    with response:
        if response.status != PARTIAL:
            here = 0
        length = response.headers.get("Content-Length")
        total = here + int(length) if length else 0
        with part.open("ab" if here else "wb") as out:
            while block := response.read(BLOCK):
                out.write(block)
                here += len(block)
                progress(here, total)
    if here < total:
        raise http.client.IncompleteRead(b"", total - here)
    expected = sha256 or _declared(headers)
    if expected and not _is(part, expected):
        part.unlink()
        raise UserError(f"{url} does not match its checksum {expected[:12]}..., and was removed; fetch it again")
    part.replace(path)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Remembers the headers of redirects: the first server knows the checksum, the last one holds the content."""

    def __init__(self) -> None:
        self.headers: list[Message] = []

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, start: int) -> tuple[Any, list[Message]]:
    """The answer from byte `start` on, and the headers of all servers on the way."""
    redirects = _Redirects()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    response = urllib.request.build_opener(redirects).open(request, timeout=PATIENCE)
    return response, [*redirects.headers, response.headers]


def _declared(headers: list[Message]) -> str:
    """The checksum that a server gives: sha256, or git's sha1 of small files (as Hugging Face does); or nothing."""
    for header in headers:
        for name in ("X-Linked-ETag", "ETag"):
            tag = (header.get(name) or "").removeprefix("W/").strip('"')
            if len(tag) in (40, 64) and all(letter in "0123456789abcdef" for letter in tag):
                return tag
    return ""


def _is(path: Path, checksum: str) -> bool:
    """Whether a file has that sha256, or that sha1 as a blob of git."""
    is_git = len(checksum) == 40
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode()) if is_git else hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == checksum


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)
