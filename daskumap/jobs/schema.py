"""What a job file may say; unknown keys and wrong types are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

# What JSON schema can say of it, editors say while a file is written; the rest is checked when it is read.
SIGN = r"(\$\{[A-Za-z_]\w*\}|[^{}])"  # or a value of the environment
WITH_DATE = r"\{date\}|\$\{"
AS_DATED = {"properties": {"run": {"pattern": WITH_DATE}}}
GROWING = {
    "properties": {
        "run": {"pattern": WITH_DATE},
        "results": {"items": {"properties": {"path": {"pattern": WITH_DATE}}}},
    }
}
TOGETHER = [
    {"if": {"required": ["retention"], "properties": {"retention": {"type": "integer"}}}, "then": AS_DATED},
    {"if": {"required": ["growing"], "properties": {"growing": {"type": "object"}}}, "then": GROWING},
]
# In the name of a run, of a result and of transformed rows: the day of the run.
DATE = "{date}"
# A cluster with such an ending is described by a file; with another one it is a scheduler.
CLUSTER_FILES = (".yaml", ".yml")


def _as_rows(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _in_one_line(text: str) -> str:
    if any(ord(sign) < ord(" ") or sign == "\x7f" for sign in text):
        raise ValueError("it has a control character, such as the end of a line")
    return text


def _checked(text: str) -> str:
    if {text.count("{"), text.count("}")} != {text.count(DATE)}:
        raise ValueError(f"only {DATE} is replaced in a name, and {text!r} has another brace")
    if text.rstrip("/").rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"{text!r} names no file or folder of its own")
    return text


def _web(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must be a URL that begins with http:// or https://")
    return url


Text = Annotated[str, Field(min_length=1), AfterValidator(_in_one_line)]
Name = Annotated[
    Text,
    AfterValidator(_checked),
    Field(json_schema_extra={"pattern": rf"^({SIGN}|\{{date\}})*$"}),
]
RunName = Annotated[
    Text,
    AfterValidator(_checked),
    Field(json_schema_extra={"pattern": rf"^{SIGN}*(\{{date\}}{SIGN.replace('{}', '{}/')}*/*)?$"}),
]


class Part(BaseModel):
    """A part of a job file; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class Rows(BaseModel):
    """Rows that are read: where they lie, and the options of `daskumap.source` beside it."""

    model_config = ConfigDict(extra="allow")

    path: Text = Field(description="Path or URL, as of `daskumap.fit`.")

    @property
    def options(self) -> dict[str, Any]:
        """The options of `daskumap.source`."""
        return dict(self.model_extra or {})


# As JSON schema it is either, too.
RowsOrPath = Annotated[
    Rows, BeforeValidator(_as_rows, json_schema_input_type=Rows | Annotated[str, Field(min_length=1)])
]


class Result(BaseModel):
    """What is written of the map for other programs, with options of `daskumap.export`."""

    model_config = ConfigDict(extra="allow")

    path: Name = Field(description="Path or URL; its ending says which format.")
    overwrite: bool = Field(False, description="Write over what is there and this job did not write.")

    @property
    def options(self) -> dict[str, Any]:
        """The options of `daskumap.export`."""
        return dict(self.model_extra or {})


class Transform(Part):
    """New rows that are placed into the map."""

    source: RowsOrPath = Field(description="The new rows.")
    out: Name = Field(description="Path or URL of the run store of their places.")
    results: list[Result] = Field([], description="What is written of their places for other programs.")


class Growing(Part):
    """A source that gets new rows at its end: they are placed into the map that there is."""

    refit_above: float = Field(
        0.15,
        ge=0,
        le=1,
        description="A new map is made where a larger share of the new rows is far: farther from its "
        "neighbours than 95 % of the fitted rows are from theirs. Of rows like the fitted ones 0.05 are.",
    )
    refit_growth: float = Field(
        1.0, gt=0, description="A new map is made where there are more new rows than this, by fitted rows."
    )


class Notify(Part):
    """Who is told how the job ended."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["command"]}, {"required": ["webhook"]}]}
    )

    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="A program and its arguments; it gets the summary as JSON on stdin."
    )
    webhook: (
        Annotated[str, AfterValidator(_web), Field(json_schema_extra={"pattern": r"^https?://[^/?#]+|\$\{"})]
        | None
    ) = Field(None, description="A URL that gets the summary as JSON by POST.")
    on: Literal["news", "always", "failure"] = Field(
        "news", description="news: not where nothing changed. failure: errors and stops alone."
    )
    timeout: float = Field(30.0, gt=0, le=3600, description="Seconds an attempt may take.")
    retries: int = Field(2, ge=0, le=10, description="Attempts after the first one.")

    @model_validator(mode="after")
    def _one(self) -> Notify:
        if (self.command is None) == (self.webhook is None):
            raise ValueError("name either a command or a webhook")
        return self


class Job(Part):
    """A whole job: what is read, where its map goes, how it is made, and what happens then."""

    name: Text | None = Field(None, description="For messages; default: the file's name.")
    source: RowsOrPath = Field(
        description="The rows, with the options of `daskumap.source`; or a run, whose neighbours are used."
    )
    run: RunName = Field(
        description="Path or URL of the run store. With {date} in its last part a run that finds something "
        "changed gets a run store of its own."
    )
    parameters: dict[str, Any] = Field({}, description="Parameters of `daskumap.fit`.")
    cluster: str | dict[str, Any] | None = Field(
        None, description="A cluster file, its content, or a scheduler; default: this process."
    )
    memory: str | int | None = Field(None, description="What a worker may use, such as 4GB.")
    threads: int | None = Field(None, ge=1, description="Threads of this process.")
    labels: Text | None = Field(None, description="A NumPy file or Zarr array with a label for each row.")
    results: list[Result] = Field([], description="What is written of the map for other programs.")
    growing: Growing | None = Field(
        None,
        description="The source gets new rows at its end, which are placed into the map. {} for defaults.",
    )
    transform: list[Transform] = Field([], description="New rows that are placed into the map.")
    retention: int | None = Field(
        None, ge=1, description="How many finished runs stay, the newest ones; default: all."
    )
    when_changed: Literal["refuse", "restart"] = Field(
        "refuse",
        description="What is done where input or parameters are not those of the run that is there: refuse "
        "(exit code 6), or restart, which deletes it first. With {date} a new run is made in any case.",
    )
    trust_input: bool = Field(
        False, description="Do not read the input of a run that is there again to see that it did not change."
    )
    notify: list[Notify] = Field([], description="Who is told how the job ended.")

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _used: dict[str, str] = PrivateAttr(default_factory=dict)

    def about_file(self, folder: Path, used: Mapping[str, str]) -> None:
        """Remember where the job file lies, and which values of the environment it names."""
        self._folder, self._used = folder, dict(used)

    @property
    def folder(self) -> Path:
        """The folder of the job file, which paths are as seen from."""
        return self._folder

    @property
    def used(self) -> dict[str, str]:
        """Values of the environment that stand in the job, which no log is to have, and their names."""
        return dict(self._used)

    @property
    def dated(self) -> bool:
        """Whether each run that finds something changed has a run store of its own."""
        return DATE in self.run

    @property
    def all_results(self) -> list[Result]:
        """The results of the map and of the new rows."""
        return [*self.results, *(one for part in self.transform for one in part.results)]

    @model_validator(mode="after")
    def _fits_together(self) -> Job:
        if DATE in self.run.rstrip("/").rpartition("/")[0]:
            raise ValueError(f"run is {self.run!r}; {DATE} may stand in its last part only")
        if self.retention is not None and not self.dated:
            raise ValueError(
                f"retention is {self.retention}, and run {self.run!r} is one run store. Put {DATE} into its "
                "name, such as 'maps/{date}.zarr', or leave retention out"
            )
        if self.growing is not None and not self.dated:
            raise ValueError(
                f"growing needs a run store for each map, and run {self.run!r} is one. Put {DATE} into its "
                "name, such as 'maps/{date}.zarr'"
            )
        if self.run.count(DATE) > 1:
            raise ValueError(f"run is {self.run!r}; {DATE} may stand in it once")
        undated = [one.path for one in self.results if DATE not in one.path]
        if self.growing is not None and undated:
            raise ValueError(
                f"a growing job writes results of its map and of new rows, and those of an older map would "
                f"stay beside those of a newer one. Put {DATE} into {undated[0]!r}, such as "
                "'results/{date}.csv'"
            )
        return self


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of job files, for editors and other programs."""
    schema = Job.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "A job of daskumap",
        "allOf": TOGETHER,
    }
