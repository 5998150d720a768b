"""The official lists of UCF101: classes and splits, as `ucfTrainTestlist` has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vfbench.datasets._tree import SPLIT_LISTS, is_folder, listing
from vfbench.errors import MissingData

LISTS, CLASS_LIST = "ucfTrainTestlist", "classInd.txt"
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


def read_classes(path: Path, how: str) -> tuple[str, ...]:
    """Class names in the order of their numbers; a line is `1 ApplyEyeMakeup`.

    Raises `MissingData` with `how` to get the lists where the file is not there, or is another.
    """
    lines = _read(path, how)
    if not lines or [line[0] for line in lines] != [str(i + 1) for i in range(len(lines))]:
        raise MissingData(f"{path}: is not the official class list, numbered from 1.\n{how}")
    return tuple(line[-1] for line in lines)


def read_list(path: Path, classes: Sequence[str], how: str) -> list[str]:
    """Names of clips; a train list repeats the number of the class, counted from 1, a test list does not.

    Raises `MissingData` with `how` to get the lists where the file is not there, or contradicts the classes.
    """
    numbers = {name: i for i, name in enumerate(classes)}
    clips = []
    for name, *number in _read(path, how):
        label = numbers.get(name.split("/")[0])
        if label is None or number not in ([], [str(label + 1)]):
            raise MissingData(f"{path}: '{' '.join([name, *number])}' does not fit {CLASS_LIST}.\n{how}")
        clips.append(name)
    return clips


def _read(path: Path, how: str) -> list[list[str]]:
    """The words of each line that has any; lines may end in CRLF."""
    try:
        return [line.split() for line in path.read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MissingData(f"{path}: cannot be read ({error}).\n{how}") from error
