"""Fetching weights from a server on the loopback address: redirects, resuming, checksums, errors."""

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.teachers.base import Card, WeightFile, cards
from cmp_seg_ros.teachers.download import fetch, missing

WEIGHTS, CONFIG = bytes(range(256)) * 20_000, b'{"model_type": "dinov2"}'  # 5 MB


class Server(ThreadingHTTPServer):
    """A hub that redirects large files to a store, whose checksums only the hub knows, as Hugging Face does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
        self.declared = {"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}
        self.declared["config.json"] = hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
        self.breaks = 0  # answers that end in the middle
        self.ranges: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name not in self.server.files:
            self.send_error(404)
        elif name == "model.safetensors" and not self.path.startswith("/store"):
            self.send_response(302)
            self.send_header("Location", f"/store/{name}")
            self.send_header("X-Linked-ETag", f'"{self.server.declared[name]}"')
            self.end_headers()
        else:
            self._send(name)

    def _send(self, name: str) -> None:
        content, wanted = self.server.files[name], self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.server.ranges += [wanted] if wanted else []
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if not self.path.startswith("/store"):
            self.send_header("ETag", f'"{self.server.declared[name]}"')
        self.end_headers()
        rest = content[start:]
        if self.server.breaks:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)
        self.close_connection = True


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(tmp_path / "teachers"))
    with Server() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def card_of(server: Server, sha256: str = "", *more: WeightFile) -> Card:
    files = (
        WeightFile("config.json", f"{server.url}/repo"),
        WeightFile("model.safetensors", f"{server.url}/repo", sha256),
    )
    return cards()["dinov2-s"]._replace(files=(*files, *more))


def test_a_download_that_broke_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    card = card_of(server)
    assert missing(card) == ["config.json", "model.safetensors"]
    (tmp_path / "teachers").mkdir()
    server.files["config.json"] = CONFIG
    fetch(card_of(server)._replace(files=card.files[:1] * 2))
    server.breaks = 1
    with pytest.raises(UserError, match=r"model.safetensors cannot be reached .*run the command again"):
        fetch(card)
    assert missing(card) == ["model.safetensors (cut off)"]
    seen: list[tuple[str, int, int]] = []
    where = fetch(card, lambda *state: seen.append(state))
    assert server.ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert (where / "model.safetensors").read_bytes() == WEIGHTS and (where / "config.json").read_bytes() == CONFIG
    assert seen[-1] == ("model.safetensors", len(WEIGHTS), len(WEIGHTS))
    assert missing(card) == [] and not list(where.glob("*.part"))


def test_what_is_not_as_its_checksum_says_is_removed(server: Server, tmp_path: Path) -> None:
    server.files["model.safetensors"] = WEIGHTS[::-1]
    with pytest.raises(UserError, match=r"does not match its checksum [0-9a-f]{12}\.\.\., and was removed"):
        fetch(card_of(server))
    assert sorted(path.name for path in (tmp_path / "teachers" / "dinov2-s").iterdir()) == ["config.json"]
    server.files["config.json"] = CONFIG.replace(b"2", b"3")
    with pytest.raises(UserError, match="does not match its checksum"):
        fetch(card_of(server)._replace(file="other"))
    server.files |= {"model.safetensors": WEIGHTS, "config.json": CONFIG}
    with pytest.raises(UserError, match="does not match its checksum 000000000000"):  # pinned, whatever the server says
        fetch(card_of(server, "0" * 64)._replace(file="third"))


def test_a_part_of_another_file_is_replaced(server: Server, tmp_path: Path) -> None:
    card = card_of(server)
    (tmp_path / "teachers" / "dinov2-s").mkdir(parents=True)
    (tmp_path / "teachers" / "dinov2-s" / "model.safetensors.part").write_bytes(WEIGHTS + b"more")
    assert (fetch(card) / "model.safetensors").read_bytes() == WEIGHTS


def test_another_file_stands_in_and_a_missing_one_is_named(server: Server) -> None:
    server.files["pytorch_model.bin"] = b"weights"
    server.declared["pytorch_model.bin"] = ""
    instead = WeightFile("weights.safetensors", f"{server.url}/repo", instead=("pytorch_model.bin",))
    card = card_of(server, "", instead)
    assert (fetch(card) / "pytorch_model.bin").read_bytes() == b"weights" and missing(card) == []
    with pytest.raises(UserError, match=r"absent.json answers 404 .*get it by hand: huggingface.co/facebook"):
        fetch(card_of(server, "", WeightFile("absent.json", f"{server.url}/repo")))


def test_without_a_network_or_weights_it_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/facebook/dinov2-small/.* cannot be reached"):
        fetch(cards()["dinov2-s"])
    with pytest.raises(UserError, match="has no weights to fetch"):
        fetch(cards()["simulated"])


def test_the_command_lists_and_fetches(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmp_seg_ros.cli.teachers import Action, teachers

    server.files |= {"preprocessor_config.json": b"{}"}
    server.declared["preprocessor_config.json"] = ""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    teachers(Action.fetch, "dinov2-s")
    capsys.readouterr()
    teachers(Action.list, as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["dinov2-s"]["missing"] == [] and rows["dinov2-l"]["missing"] == [
        "config.json", "preprocessor_config.json", "model.safetensors"
    ]  # fmt: skip
    assert rows["segformer-b0"]["classes"] == "ade20k" and rows["simulated"]["missing"] == []
    teachers(Action.list)
    assert "here" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no teacher 'dino' to fetch; known: .*mosaic"):
        teachers(Action.fetch, "dino")
