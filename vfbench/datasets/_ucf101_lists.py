"""Official lists of UCF101 in `ucfTrainTestlist`: classes and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vfbench.clips.scan import is_folder, list_folder
from vfbench.datasets._naming import NAME_PATTERNS, stem
from vfbench.datasets._tree import SPLIT_LISTS
from vfbench.errors import MissingData
from vfbench.interfaces import Split
from vfbench.utils.files import read_text

LISTS_FOLDER, CLASS_LIST = "ucfTrainTestlist", "classInd.txt"
LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
DOWNLOAD_PAGE = "https://www.crcv.ucf.edu/data/UCF101.php"
GET_AGAIN = f"get {LISTS_ARCHIVE} again, from {DOWNLOAD_PAGE}"
LIST_LENGTHS: Mapping[int, Mapping[Split, int]] = {  # lines of the official lists 1, 2 and 3
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
}
# In official order, which is alphabetical.
CLASSES = tuple(
    """
    ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball
    BasketballDunk BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag
    BoxingSpeedBag BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen
    Diving Drumming Fencing FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering
    HammerThrow HandstandPushups HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing
    JavelinThrow JugglingBalls JumpingJack JumpRope Kayaking Knitting LongJump Lunges MilitaryParade Mixing
    MoppingFloor Nunchucks ParallelBars PizzaTossing PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar
    PlayingPiano PlayingSitar PlayingTabla PlayingViolin PoleVault PommelHorse PullUps Punch PushUps Rafting
    RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard Shotput SkateBoarding Skiing Skijet SkyDiving
    SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing TableTennisShot TaiChi TennisSwing
    ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking WalkingWithDog WallPushups WritingOnBoard YoYo
    """.split()  # noqa: SIM905  # one a line would be a page
)
# Class name in file names, where it differs from the folder name.
FILE_SPELLING = {"HandstandPushups": "HandStandPushups"}
_CLASS_BY_LOWER_NAME = {name.lower(): name for name in CLASSES}


def official_name(action: str, group: str, clip: str) -> str:
    """Name of a clip in the official lists, `YoYo/v_YoYo_g01_c01.avi`; the case of `action` is ignored."""
    folder = _CLASS_BY_LOWER_NAME.get(action.lower(), action)
    return f"{folder}/v_{FILE_SPELLING.get(folder, folder)}_g{group}_c{clip}.avi"


def find_lists(folders: Sequence[Path]) -> Path | None:
    """Folder of the lists: in or among the files of one of `folders`, last first, or beside the first; None if absent.

    `folders` are those of `vfbench.datasets._locate.search_folders`.
    """
    for folder in reversed(folders):
        if (folder / CLASS_LIST).is_file():
            return folder
        for item in list_folder(folder):
            if item.name.lower() == SPLIT_LISTS and is_folder(item):
                return folder / item.name
    beside = folders[0].absolute().parent / LISTS_FOLDER
    return beside if beside.is_dir() else None


class Line(NamedTuple):
    """A non-empty line of a list: its number, counted from 1, and its words."""

    number: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.number}, '{' '.join(self.words)}'"


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in the order of their numbers, with official spelling; a line is `1 ApplyEyeMakeup`.

    Raises `MissingData` with the archive to get for a file that is missing, empty or, naming the line, no class list.
    """
    lines = _read_lines(path)
    if not lines:
        raise MissingData(f"{path}: is empty, needed: the official class list; {GET_AGAIN}")
    for label, line in enumerate(lines, 1):
        if len(line.words) < 2 or line.words[0] != str(label):
            raise MissingData(f"{path}: {line}: is not the official class list, needed: '{label} CLASS'; {GET_AGAIN}")
    return tuple(_CLASS_BY_LOWER_NAME.get(line.words[-1].lower(), line.words[-1]) for line in lines)


def read_list(path: Path, classes: Sequence[str]) -> list[str]:
    """Official clip names in a train or test list.

    Class numbers, which only train lists have, are checked and dropped. Case is ignored: some lists spell a folder
    differently, such as `HandStandPushups/`. Raises `MissingData` for a missing list, with the archive that holds it,
    and for a line that contradicts the class list.
    """
    labels = {name.lower(): i for i, name in enumerate(classes)}
    clips = []
    for line in _read_lines(path):
        name, *number = line.words
        folder, _, file = name.partition("/")
        label = labels.get(folder.lower())
        if label is None or not file or len(number) > 1:
            needed = f"CLASS/v_CLASS_g01_c01.avi with a class of {CLASS_LIST}, and its number in a train list"
            raise MissingData(f"{path}: {line}: names no clip, needed: {needed}; {GET_AGAIN}")
        if number not in ([], [str(label + 1)]):
            raise MissingData(f"{path}: {line}: {CLASS_LIST} gives {classes[label]} the label {label + 1}; {GET_AGAIN}")
        match = NAME_PATTERNS["ucf101"].fullmatch(stem(file))
        file = official_name(*match.groups()).partition("/")[2] if match else file
        clips.append(f"{classes[label]}/{file}")
    return clips


def official_lengths(classes: Sequence[str], split_list: int) -> Mapping[Split, int]:
    """Number of clips of each split of an official list; empty where other classes show that the lists are custom."""
    return LIST_LENGTHS[split_list] if tuple(classes) == CLASSES else {}


def _read_lines(path: Path) -> list[Line]:
    """Non-empty lines of a text file; accepts CRLF line ends and a byte order mark."""
    try:
        lines = read_text(path).splitlines()
    except MissingData as error:
        raise MissingData(f"{error}; {GET_AGAIN}") from error
    return [Line(number, tuple(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
