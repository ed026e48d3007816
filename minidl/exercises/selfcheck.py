"""`dev-check`: whether the exercises themselves keep what they promise."""

import tempfile
from collections.abc import Iterator

from .catalogue import EXERCISES
from .checking import check_function
from .folder import Folder
from .format import CHAPTERS, Exercise
from .sandbox import check_in_process
from .sources import answer, plant, stub
from .verdict import NOT_STARTED, PASSED

SECONDS = 2.0
COLUMNS = 79


def faults(exercise: Exercise, seeds: int = 20) -> Iterator[str]:
    """What is wrong with one exercise, apart from what only its files in a folder can show."""
    if exercise.module.__name__.rpartition(".")[2] + ".py" != exercise.file:
        yield f"stands in {exercise.module.__name__}, its name asks for {exercise.file}"
    if exercise.chapter not in CHAPTERS:
        yield f"belongs to an unknown chapter {exercise.chapter!r}"
    if len(exercise.hints) != 3 or len(exercise.mistakes) < 3 or len(exercise.cases) < 3:
        yield "needs three hints, three mistakes and three cases"
    for name in exercise.uses:
        if EXERCISES[name].number >= exercise.number:
            yield f"uses {name}, which comes later"
    for line in answer(exercise).splitlines():
        if len(line) > COLUMNS:
            yield f"a line of the learner's file is {len(line)} columns wide: {line.strip()}"
    namespace: dict[str, object] = {}
    code = stub(exercise).replace("\nfrom e", "\n# from e")
    exec(compile(code, exercise.file, "exec"), namespace)
    verdict = check_function(exercise, namespace[exercise.name])  # type: ignore[arg-type]
    if verdict.status != NOT_STARTED:
        yield f"its stub reads {verdict.status!r}"
    for seed in range(seeds):
        verdict = check_function(exercise, exercise.solution, seed)
        if verdict.status != PASSED:
            yield f"its solution does not pass with seed {seed}: {verdict.headline}"
        if verdict.seconds > SECONDS:
            yield f"a check takes {verdict.seconds:.1f} s, more than {SECONDS} s"


def misnamed(exercise: Exercise, seed: int = 0) -> Iterator[str]:
    """Planted mistakes that pass, or that are taken for something else."""
    for mistake in exercise.mistakes:
        verdict = check_function(exercise, plant(exercise, mistake), seed)
        if verdict.status == PASSED:
            yield f"the mistake {mistake.name} passes"
        elif verdict.mistakes != [mistake.name]:
            named = ", ".join(verdict.mistakes) or verdict.headline
            yield f"the mistake {mistake.name} is taken for: {named}"
        if verdict.seconds > SECONDS:
            yield f"checking {mistake.name} takes {verdict.seconds:.1f} s"


def faults_in_a_folder(exercise: Exercise) -> Iterator[str]:
    """Whether an answer passes in a learner's folder where only the earlier ones are done."""
    with tempfile.TemporaryDirectory() as path:
        folder, _ = Folder.start(path)
        for other in EXERCISES.values():
            if other.number <= exercise.number:
                folder.file(other).write_text(answer(other))
        verdict = check_in_process(exercise.name, folder.file(exercise))
        if verdict.status != PASSED:
            text = " ".join([verdict.headline, *verdict.details, verdict.printed])
            yield f"with only earlier exercises done it does not pass: {text}"
