"""A hub of models on this machine: as much of the Hugging Face hub's interface as loading a model asks for."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from browser import Quiet
from transformers.utils import hub as clients_hub

from mlprobe_utils.models import identity

ROUTE = re.compile(r"(/api/models)?/([^/]+/[^/]+)(?:/(revision|tree|resolve)/([^/]+)(?:/(.+))?)?")


@dataclass
class Repository:
    """Commits, each a folder of its own, and which of them the names of branches and tags stand for."""

    commits: dict[str, Path] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gate: int | None = None  # the status with which files are refused

    def push(self, folder: Path, name: str = "main") -> str:
        """Makes a folder the latest commit of a branch or tag; returns the commit."""
        commit = hashlib.sha1(f"{len(self.commits)} {folder}".encode()).hexdigest()
        self.commits[commit], self.names[name] = folder, commit
        return commit

    def commit_of(self, revision: str) -> str | None:
        """What a branch, a tag or the beginning of a commit stands for."""
        return self.names.get(revision) or next((c for c in self.commits if c.startswith(revision)), None)


class SmallHub:
    """Repositories by their ids; `asked` has the path of every request."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []

    def repository(self, name: str, folder: Path, **fields) -> Repository:
        """A new repository, whose `main` is a folder."""
        self.repositories[name] = repository = Repository(**fields)
        repository.push(folder)
        return repository

    def files_asked(self) -> set[tuple[str, str]]:
        """Revision and path of every file that was asked for."""
        routes = [ROUTE.fullmatch(path).groups() for path in self.asked]
        return {(revision, path) for _, _, kind, revision, path in routes if kind == "resolve"}

    def redirect(self, patch: pytest.MonkeyPatch, cache: Path, address: str = "") -> None:
        """Lets the hub's clients in this process ask here, and keep in `cache`: as HF_ENDPOINT and HF_HOME do."""
        constants, address = huggingface_hub.constants, address or self.address
        patch.setattr(constants, "ENDPOINT", address)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(clients_hub, "_hf_api", None)  # it would remember the address
        identity._resolved.cache_clear()

    def answer(self, path: str) -> tuple[HTTPStatus, bytes, dict[str, str]]:
        """Status, content and headers of what the hub answers to a request for a path."""
        self.asked.append(path)
        _, name, kind, revision, place = ROUTE.fullmatch(path).groups()
        repository = self.repositories.get(name)
        if repository is None:
            return _refusal(HTTPStatus.NOT_FOUND, "RepoNotFound", "Repository not found")
        if repository.gate and kind == "resolve":
            return _refusal(HTTPStatus(repository.gate), "GatedRepo", f"Access to model {name} is restricted.")
        commit = repository.commit_of(unquote(revision or "main"))
        if commit is None:
            return _refusal(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        known, folder = {"X-Repo-Commit": commit}, repository.commits[commit]
        if kind in (None, "revision"):
            return _json({"id": name, "sha": commit, "siblings": [{"rfilename": p.name} for p in folder.iterdir()]})
        if kind == "tree":
            files = [p for p in folder.iterdir() if place is None]  # there are no folders below
            return _json([{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": _tag(p)} for p in files])
        file = folder / place
        if not file.is_file():
            return _refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", known)
        return HTTPStatus.OK, file.read_bytes(), known | {"ETag": f'"{_tag(file)}"'}


class Handler(Quiet):
    hub: SmallHub

    def do_GET(self) -> None:
        status, content, headers = self.hub.answer(urlsplit(self.path).path)
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET


def _tag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _json(content) -> tuple:
    return HTTPStatus.OK, json.dumps(content).encode(), {"Content-Type": "application/json"}


def _refusal(status: HTTPStatus, code: str, message: str, more: dict[str, str] | None = None) -> tuple:
    return status, b"", {"X-Error-Code": code, "X-Error-Message": message} | (more or {})
