"""The official lists of UCF101: classes and splits, as `ucfTrainTestlist` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vfbench.clips.scan import is_folder, listing
from vfbench.datasets._naming import NAMES, stem
from vfbench.datasets._tree import SPLIT_LISTS
from vfbench.errors import MissingData
from vfbench.interfaces import Split

LISTS, CLASS_LIST = "ucfTrainTestlist", "classInd.txt"
ARCHIVE, PAGE = "UCF101TrainTestSplits-RecognitionTask.zip", "https://www.crcv.ucf.edu/data/UCF101.php"
AGAIN = f"get {ARCHIVE} again, from {PAGE}"
LENGTHS: Mapping[int, Mapping[Split, int]] = {  # lines of the official lists 1, 2 and 3
    1: {"train": 9537, "test": 3783},
    2: {"train": 9586, "test": 3734},
    3: {"train": 9624, "test": 3696},
}
# In the order of their official numbers, which is that of the alphabet.
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
# The class whose files are spelled otherwise than its folder.
SPELLED = {"HandstandPushups": "HandStandPushups"}
_BY_PLAIN_NAME = {name.lower(): name for name in CLASSES}


def official_name(action: str, group: str, clip: str) -> str:
    """A clip as the official lists name it, `YoYo/v_YoYo_g01_c01.avi`, whatever the case of its action."""
    folder = _BY_PLAIN_NAME.get(action.lower(), action)
    return f"{folder}/v_{SPELLED.get(folder, folder)}_g{group}_c{clip}.avi"


def find_lists(places: Sequence[Path]) -> Path | None:
    """The folder of the lists: inside the last of the folders, beside it or above, or its files among the videos."""
    for place in reversed(places):
        if (place / CLASS_LIST).is_file():
            return place
        for item in listing(place):
            if item.name.lower() == SPLIT_LISTS and is_folder(item):
                return place / item.name
    beside = places[0].absolute().parent / LISTS
    return beside if beside.is_dir() else None


class Line(NamedTuple):
    """A line of a list by its number, counted from 1, in words."""

    number: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"line {self.number}, '{' '.join(self.words)}'"


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names as the official list spells them, in the order of their numbers; a line is `1 ApplyEyeMakeup`.

    Raises `MissingData` with the way to get the lists where the file is not there, is empty, or is another, naming the
    line.
    """
    lines = _read(path)
    if not lines:
        raise MissingData(f"{path}: is empty, needed: the official class list; {AGAIN}")
    for label, line in enumerate(lines, 1):
        if len(line.words) < 2 or line.words[0] != str(label):
            raise MissingData(f"{path}: {line}: is not the official class list, needed: '{label} CLASS'; {AGAIN}")
    return tuple(_BY_PLAIN_NAME.get(line.words[-1].lower(), line.words[-1]) for line in lines)


def read_list(path: Path, classes: Sequence[str]) -> list[str]:
    """Official names of clips; a train list repeats the number of the class, counted from 1, a test list does not.

    Lists are about that spell a class as its files, `HandStandPushups/...`: case makes no difference. Raises
    `MissingData` with the way to get the lists where the file is not there, or naming the line that contradicts the
    classes.
    """
    numbers = {name.lower(): i for i, name in enumerate(classes)}
    clips = []
    for line in _read(path):
        name, *number = line.words
        folder, _, file = name.partition("/")
        label = numbers.get(folder.lower())
        if label is None or not file or len(number) > 1:
            needed = f"CLASS/v_CLASS_g01_c01.avi with a class of {CLASS_LIST}, in a train list its number too"
            raise MissingData(f"{path}: {line}: names no clip, needed: {needed}; {AGAIN}")
        if number not in ([], [str(label + 1)]):
            raise MissingData(f"{path}: {line}: {CLASS_LIST} gives {classes[label]} the label {label + 1}; {AGAIN}")
        known = NAMES["ucf101"].fullmatch(stem(file))
        file = official_name(*known.groups()).partition("/")[2] if known else file
        clips.append(f"{classes[label]}/{file}")
    return clips


def official_lengths(classes: Sequence[str], split_list: int) -> Mapping[Split, int]:
    """How many clips an official list gives each split; none where other classes say that the lists are one's own."""
    return LENGTHS[split_list] if tuple(classes) == CLASSES else {}


def _read(path: Path) -> list[Line]:
    """The lines that have any words; they may end in CRLF, and the file begin with a byte order mark."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise MissingData(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from error
    except UnicodeDecodeError as error:
        raise MissingData(f"{path}: cannot be read, it is no text in UTF-8 ({error.reason}); {AGAIN}") from error
    return [Line(number, tuple(line.split())) for number, line in enumerate(lines, 1) if line.strip()]
