"""The settings of a search, taken or refused, and how long it is."""

from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from captum_classpattern._validation import ArgumentTypeError, check_count, check_seed, is_whole

SOLVERS = ("swap", "paper")
PRECISIONS = ("auto", "full", "bfloat16")
SIGN_BATCH, PAPER_EPOCHS = 4, 5
SIGN_STEPS = 5  # of the swap solver: for each of its rounds
SWAP_BATCH, SWAP_ROUNDS = 16, 80


@dataclass(frozen=True)
class Settings:
    """What decides a search's result; described in :func:`search_masks`."""

    solver: str = "swap"
    area: float = 0.05
    alpha: float = 0.2
    step_size: float = 0.02
    batch_size: int | None = None
    n_epochs: int | None = None
    n_steps: int | None = None
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Raises an error that names the first setting out of range; keeps plain numbers."""
        for name, choices in (("solver", SOLVERS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.solver == "paper" and self.precision == "bfloat16":
            raise ValueError(
                "precision='bfloat16' is for the swap solver: solver='paper' uses the model as it "
                "is; leave precision out"
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")
        if not self.step_size > 0:
            raise ValueError(f"step_size must be positive, got {self.step_size}")
        if isinstance(self.area, bool) or not isinstance(self.area, Real):
            raise ArgumentTypeError(
                f"area must be a number, the share of pixels, got {self.area!r}"
            )
        for name in ("batch_size", "n_epochs", "n_steps"):
            value = getattr(self, name)
            if value is not None:
                check_count(name, value)
        check_seed(self.seed)
        for name, value in asdict(self).items():  # NumPy's numbers are none that JSON can hold
            if not isinstance(value, str | None):
                object.__setattr__(self, name, int(value) if is_whole(value) else float(value))

    @property
    def swaps(self) -> bool:
        """Whether the solver goes on with swaps after the steps by the sign."""
        return self.solver == "swap"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def batch_sizes(self, baselines: int, left: int) -> tuple[list[int], int]:
        """Images of each step of a search, and how many of these steps move by the sign.

        Args:
            baselines (int): How many there are; they make the epochs of the swap solver, whose
                rounds are as many for every target.
            left (int): How many of them are not of the target's class.
        """
        if not self.swaps:
            size = self.batch_size or SIGN_BATCH
            steps = self.n_steps or (self.n_epochs or PAPER_EPOCHS) * -(-left // size)
            return [size] * steps, steps
        size = self.batch_size or SWAP_BATCH
        by_epochs = None if self.n_epochs is None else self.n_epochs * -(-baselines // size)
        rounds = self.n_steps or by_epochs or SWAP_ROUNDS
        signs = SIGN_STEPS * rounds
        return [SIGN_BATCH] * signs + [size] * rounds, signs
