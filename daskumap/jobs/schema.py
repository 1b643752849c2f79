"""What a job file may say; unknown keys and wrong types are refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

# In the name of a run, of a result and of transformed rows: the day of the run.
DATE = "{date}"
# A cluster with such an ending is described by a file; with another one it is a scheduler.
CLUSTER_FILES = (".yaml", ".yml")


def _as_rows(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _checked(text: str) -> str:
    if text.count("{") != text.count(DATE):
        raise ValueError(f"only {DATE} is replaced in a name, and {text!r} has another brace")
    return text


Name = Annotated[str, Field(min_length=1), AfterValidator(_checked)]


class Part(BaseModel):
    """A part of a job file; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class Rows(BaseModel):
    """Rows that are read: where they lie, and the options of `daskumap.source` beside it."""

    model_config = ConfigDict(extra="allow")

    path: str = Field(min_length=1, description="Path or URL, as of `daskumap.fit`.")

    @property
    def options(self) -> dict[str, Any]:
        """The options of `daskumap.source`."""
        return dict(self.model_extra or {})


RowsOrPath = Annotated[Rows, BeforeValidator(_as_rows)]


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

    command: list[str] | None = Field(
        None, min_length=1, description="A program and its arguments; it gets the summary as JSON on stdin."
    )
    webhook: str | None = Field(None, description="A URL that gets the summary as JSON by POST.")
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

    name: str | None = Field(None, min_length=1, description="For messages; default: the file's name.")
    source: RowsOrPath = Field(
        description="The rows, with the options of `daskumap.source`; or a run, whose neighbours are used."
    )
    run: Name = Field(
        description="Path or URL of the run store. With {date} in its last part a run that finds something "
        "changed gets a run store of its own."
    )
    parameters: dict[str, Any] = Field({}, description="Parameters of `daskumap.fit`.")
    cluster: str | dict[str, Any] | None = Field(
        None, description="A cluster file, its content, or a scheduler; default: this process."
    )
    memory: str | int | None = Field(None, description="What a worker may use, such as 4GB.")
    threads: int | None = Field(None, ge=1, description="Threads of this process.")
    labels: str | None = Field(
        None, min_length=1, description="A NumPy file or Zarr array with a label for each row."
    )
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
        names = [self.run, *(one.out for one in self.transform)]
        names += [one.path for one in self.all_results]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is written twice; give each result a name of its own")
        return self


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of job files, for editors and other programs."""
    schema = Job.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A job of daskumap"}
