"""Which LoRA settings each loaded model has had: how ``auto`` knows that they are being changed."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary


class Seen(NamedTuple):
    """The way that a setting was given, and why."""

    way: str
    reason: str


Settings = OrderedDict[tuple[Hashable, Hashable], Seen]
"""(place, setting) -> the way it was given, the last used last."""


class History:
    """The last settings of each model, at most ``most``, and the way that each was given.

    A setting keeps its way, so that coming back to it gives the same picture. Models are held
    weakly.
    """

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self._models: WeakKeyDictionary[Any, Settings] = WeakKeyDictionary()

    def way(
        self, model: Any, place: Hashable, setting: Hashable, choose: Callable[[bool], Seen]
    ) -> Seen:
        """The way for ``setting``: as before, or what ``choose`` says of whether settings change.

        ``place`` tells several stacks on one model apart.
        """
        if model not in self._models:
            self._models[model] = OrderedDict()
        settings = self._models[model]
        key = (place, setting)
        if key not in settings:
            changing = any(other == place for other, _ in settings)
            settings[key] = choose(changing)
        settings.move_to_end(key)
        while len(settings) > self.most:
            settings.popitem(last=False)
        return settings[key]
