"""A LoRA's multiplier by the block that a weight lies in: static, for every kind of adapter."""

from dataclasses import dataclass

from ...flux2.variants import BLOCK, Flux2Model
from .text import LAST, ModifierError, Rule, parse_blocks


@dataclass(frozen=True)
class Blocks:
    """Rules of which the later wins; see ``text.parse_blocks``."""

    rules: tuple[Rule, ...]
    text: str

    @classmethod
    def read(cls, text: str) -> "Blocks":
        """What the input says. Raises ModifierError."""
        text = str(text)
        return cls(parse_blocks(text), " ".join(text.split()))

    def fitted(self, model: Flux2Model) -> "Blocks":
        """The same with a vector as rules of ``model``'s blocks. Raises ModifierError where it has
        other blocks."""
        counts = {"double": model.double_blocks, "single": model.single_blocks}
        every = [("other", 0), *((kind, n) for kind, count in counts.items() for n in range(count))]
        vector = [rule[3] for rule in self.rules if rule[0] == "vector"]
        if vector and len(vector) != len(every):
            raise ModifierError(
                f"blocks has {len(vector)} numbers; {model.describe()} takes {len(every)}: one for "
                f"what is in no block, {counts['double']} double blocks, {counts['single']} single "
                "blocks."
            )
        if vector:
            rules = ((kind, n, n, one) for (kind, n), one in zip(every, vector, strict=True))
            return Blocks(tuple(rules), self.text)
        for kind, first, last, _ in self.rules:
            wrong = max(first, last if last != LAST else 0)
            if kind in counts and wrong >= counts[kind]:
                raise ModifierError(
                    f"blocks names {kind} block {wrong}; {model.describe()} has {kind} blocks 0 to "
                    f"{counts[kind] - 1}."
                )
        return self

    def of(self, key: str) -> float:
        """The multiplier of the weight of that name."""
        block = BLOCK.search(key)
        kind, number = (block[1], int(block[2])) if block else ("other", 0)
        found = 1.0
        for of, first, last, multiplier in self.rules:
            if of == kind and first <= number <= last:
                found = multiplier
        return found

    def describe(self) -> str:
        """For the report: "blocks double 0-3=0.5, single=0"."""
        return f"blocks {self.text}"
