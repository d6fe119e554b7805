"""Run `wfm-fleet model evaluate`: measure a model on photographs of known people."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from broker_bridge.contract.spaces import Alignment, DetectorName
from fleet.common import STOPPED, exit_on_error
from fleet.errors import CannotRunError
from fleet.output_file import open_output
from fleet.report import ProgressBar

from .loaded_model import LoadedModel, ModelChoice, load_model

if TYPE_CHECKING:
    from .faces.photo_set import PhotoSet
    from .faces.sampling import SampledFaces
    from .measures.searches import SearchOutcome
    from .report.evaluation import Evaluation, MeasuredScores

Folder = Annotated[Path, typer.Argument(help="A folder with a folder of photos per person.")]
Model = Annotated[
    Path | None, typer.Option("--model", help="ONNX file or engine; without it the built-in model.")
]
Detector = Annotated[
    DetectorName | None, typer.Option(help="Instead of the record's: cascade, scrfd or yunet.")
]
DetectorModel = Annotated[Path | None, typer.Option(help="The ONNX file of scrfd or yunet.")]
AlignmentOption = Annotated[Alignment | None, typer.Option(help="Instead of the record's: landmarks or box.")]


def evaluate(  # noqa: PLR0917  # typer reads the options from the arguments
    folder: Folder,
    model: Model = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(help="A list of pairs, which are compared alone. May be repeated.")
    ] = None,
    picture: Annotated[str | None, typer.Option(help="Write histograms and ROC to this PNG file.")] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write all figures to this file, - for standard output.")
    ] = None,
    clips: Annotated[
        bool, typer.Option("--clips", help="Also enroll half of the photos and show the others to a camera.")
    ] = False,
    detector: Detector = None,
    detector_model: DetectorModel = None,
    alignment: AlignmentOption = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=100_000, help="Draws of the bootstrap; 0 for no intervals.")
    ] = 1000,
) -> None:
    """Measure how well a model recognises the people in FOLDER.

    FOLDER has a folder of photos per person: `anna/1.jpg`, `anna/2.jpg`, `ben/1.jpg`.

    Every photo goes the way of a camera's frame: detector, alignment, quality gate, embedder. The terminal
    shows the faces found, rank-1, EER, TAR at FAR 0.01, 0.001 and 0.0001 with intervals over people, the
    searches at the limits of the model's record, and times. Nothing is sent anywhere and no vector is kept.

    A line of --pairs is `anna/1.jpg, ben/1.jpg, impostor` (or `genuine`), or a line of LFW's lists.

    Status 0: measured; 2: it could not run; 130: stopped with Ctrl-C.
    """
    console = Console(stderr=json_file == "-")
    with exit_on_error(), exit_on_stop():
        _check_folders(picture, json_file)
        loaded = load_model(ModelChoice(model, detector, detector_model, alignment))
        if clips:
            _check_clips(loaded, pairs or [])
        photos = read_photos(folder, pairs or [])
        faces = sample(loaded, photos)
        evaluation, scores = compute(loaded, photos, faces, resamples)
        if clips:
            evaluation = replace(evaluation, clips=_run_clips(loaded, photos, faces))
        _write(evaluation, scores, picture, json_file)
    from .report.tables import print_evaluation  # noqa: PLC0415

    print_evaluation(console, evaluation)


def _check_folders(*files: str | None) -> None:
    """Raise CannotRunError for a file in no folder: a measurement takes minutes."""
    if files[0] is not None and files[0] == files[1]:
        raise CannotRunError(f"--picture and --json both name {files[0]}: name two files")
    for file in files:
        if file is not None and file != "-" and not Path(file).parent.is_dir():
            raise CannotRunError(f"{file}: cannot be written: there is no folder {Path(file).parent}")


@contextmanager
def exit_on_stop() -> Iterator[None]:
    """Exit with status 130 after Ctrl-C, without a traceback."""
    try:
        yield
    except KeyboardInterrupt as error:
        typer.echo("stopped: nothing was written", err=True)
        raise typer.Exit(STOPPED) from error


def read_photos(folder: Path, pairs: list[Path]) -> "PhotoSet":
    """Return the photos in `folder`, or those that lists name. Raises CannotRunError."""
    from .faces.pair_lists import read_pair_lists  # noqa: PLC0415
    from .faces.person_folders import read_person_folders  # noqa: PLC0415

    return read_pair_lists(folder, pairs) if pairs else read_person_folders(folder)


def sample(loaded: LoadedModel, photos: "PhotoSet") -> "SampledFaces":
    """Embed all photos on one thread, with a progress bar."""
    from device.settings import QualitySettings  # noqa: PLC0415
    from device.vision.quality import QualityGate  # noqa: PLC0415

    from .faces.face_reader import FaceReader  # noqa: PLC0415
    from .faces.sampling import PhotoSampling  # noqa: PLC0415

    reader = FaceReader(loaded.detector, loaded.embedder, QualityGate(QualitySettings()))
    with one_thread(), ProgressBar(Console(stderr=True), "embedding", len(photos.photos)) as bar:
        return PhotoSampling(photos, reader, loaded.dimension).sample(lambda: bar.advance(1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let OpenCV use one thread, as the networks do, so that times compare."""
    import cv2  # noqa: PLC0415

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def compute(
    loaded: LoadedModel, photos: "PhotoSet", faces: "SampledFaces", resamples: int
) -> tuple["Evaluation", "MeasuredScores"]:
    """Return the figures, with a progress bar for the bootstrap.

    Raises CannotRunError.
    """
    from .report.evaluation import EvaluationPlan, evaluate_faces  # noqa: PLC0415

    draws = resamples * (1 if photos.pairs else 2)
    with ProgressBar(Console(stderr=True), "bootstrap", draws) as bar:
        plan = EvaluationPlan(resamples, lambda: bar.advance(1))
        evaluation, scores = evaluate_faces(faces, photos.pairs, loaded.record, plan)
    space = loaded.embedder.space
    model = {
        "space": loaded.record.space if loaded.record else None,
        "dimension": space.dimension,
        "model_sha256": space.model_sha256,
        "detector": loaded.detector_name,
        "alignment": loaded.alignment,
        "runs_on": loaded.embedder.session.runs_on,
    }
    return replace(evaluation, model=model), scores


def _check_clips(loaded: LoadedModel, pairs: list[Path]) -> None:
    """Raise CannotRunError if clips cannot be judged."""
    if pairs:
        raise CannotRunError("--clips needs a folder per person: leave --pairs out")
    if loaded.record is None or loaded.record.limits is None:
        raise CannotRunError("--clips needs limits of a match: record them with wfm-fleet model calibrate")


def _run_clips(loaded: LoadedModel, photos: "PhotoSet", faces: "SampledFaces") -> "SearchOutcome":
    """Return how clips of the photos end, with a progress bar."""
    from .clip_trial import ClipTrial  # noqa: PLC0415

    limits = loaded.record.limits if loaded.record else None
    if limits is None:
        raise ValueError("expected a record with limits")
    trial = ClipTrial(photos, faces, loaded.detector, loaded.embedder, limits)
    with one_thread(), ProgressBar(Console(stderr=True), "clips", len(trial.clips)) as bar:
        return trial.run_trial(lambda: bar.advance(1))


def _write(
    evaluation: "Evaluation", scores: "MeasuredScores", picture: str | None, json_file: str | None
) -> None:
    """Write the files that the options name; raises CannotRunError."""
    from .report.picture import draw_evaluation  # noqa: PLC0415

    documents: dict[str, bytes] = {}
    if picture is not None:
        documents[picture] = draw_evaluation(evaluation, scores)
    if json_file is not None:
        text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
        documents[json_file] = text.encode() + b"\n"
    for file, content in documents.items():
        try:
            with open_output(file) as out:
                out.write(content)
        except OSError as error:
            raise CannotRunError(f"{file}: cannot be written ({error.strerror})") from error
