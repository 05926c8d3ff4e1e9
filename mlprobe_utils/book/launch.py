"""Where a reader can open a chapter at a click: book/launch.yml, and the links that follow from it."""

from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from pydantic import AfterValidator, Field, model_validator

from mlprobe_utils.common.settings import Part
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.pipeline.card_files import parse_card
from mlprobe_utils.pipeline.cards import Card

LAUNCH = ROOT / "book" / "launch.yml"
COLAB = "https://colab.research.google.com"


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or set(url) & set("?# "):
        raise ValueError("give an address that a browser can open, https://host/path, without blanks, ? and #")
    return url.rstrip("/")


Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, Field(pattern=r"^[^/].*[^/]$|^[^/]$")]  # no / at its ends


class Repository(Part):
    """The public git repository of the project."""

    url: Address
    branch: Name = "main"
    notebooks: Name = "notebooks"

    @property
    def path(self) -> str:
        """Its place on its host: on GitHub <owner>/<repository>."""
        return urlsplit(self.url).path.strip("/").removesuffix(".git")

    @property
    def is_on_github(self) -> bool:
        return urlsplit(self.url).hostname == "github.com" and self.path.count("/") == 1


class Hub(Part):
    """A BinderHub or a JupyterHub."""

    hub: Address


class Colab(Part):
    """The branch, and the folder in it, where the notebooks lie as .ipynb; the main branch has only scripts."""

    branch: Name
    folder: Name


class Launch(Card):
    """The services that a page offers; one that is left out is not offered."""

    repository: Repository | None = None
    binder: Hub | None = None
    colab: Colab | None = None
    jupyterhub: Hub | None = None

    @model_validator(mode="after")
    def _repository_fits(self):
        wanted = [name for name in ("binder", "colab", "jupyterhub") if getattr(self, name)]
        if wanted and self.repository is None:
            raise ValueError(f"{wanted[0]} opens a repository: add the key 'repository' with its url")
        on_github = {"binder", "colab"} & set(wanted)
        if on_github and not self.repository.is_on_github:
            raise ValueError(
                f"repository.url: {min(on_github)} is offered for https://github.com/<owner>/<repository> only, "
                f"found {self.repository.url}; jupyterhub takes the address of any git repository"
            )
        return self


def load_launch(path: Path = LAUNCH) -> Launch:
    """The book's launch services. Raises InputError, which names the file and the field, if they are not valid."""
    return parse_card(Launch, path)


def launch_links(launch: Launch, notebook: str) -> dict[str, str]:
    """Service -> address that opens a notebook there, for the services that are configured."""
    repository, links = launch.repository, {}
    if launch.binder:
        branch = quote(repository.branch, safe="")
        query = _query(urlpath=f"lab/tree/{repository.notebooks}/{notebook}.ipynb")
        links["Binder"] = f"{launch.binder.hub}/v2/gh/{repository.path}/{branch}?{query}"
    if launch.colab:
        place = quote(f"{launch.colab.branch}/{launch.colab.folder}/{notebook}.ipynb")
        links["Colab"] = f"{COLAB}/github/{repository.path}/blob/{place}"
    if launch.jupyterhub:
        folder = repository.path.rsplit("/", 1)[-1]  # into which nbgitpuller clones
        opened = f"lab/tree/{folder}/{repository.notebooks}/{notebook}.py"
        query = _query(repo=repository.url, branch=repository.branch, urlpath=opened)
        links["JupyterHub"] = f"{launch.jupyterhub.hub}/hub/user-redirect/git-pull?{query}"
    return links


def _query(**values: str) -> str:
    return urlencode(values, quote_via=quote, safe="/")
