"""Names of the people whom captions may call by name: person n is called `NAMES[n]`.

Both words of a name are in the vocabulary. Each is shared by eight people.
"""

from __future__ import annotations

_FIRST = (
    *("alba", "bruno", "clara", "diego", "elsa", "felix", "greta", "hugo", "iris", "jonas", "kira"),
    *("leon", "maya", "nils", "olga", "pablo", "quinn", "rosa", "simon", "tara", "ugo", "vera"),
    *("walt", "xenia", "yara", "zeno", "amir", "bella", "cyrus", "dora", "emil", "flora", "gino"),
    *("hana", "ivan", "juno", "kofi", "lena", "milo", "nora", "otto", "petra", "ravi", "suki"),
)
_LAST = (
    *("archer", "baker", "carver", "dale", "ellis", "fisher", "grove", "hunter", "irwin", "jordan"),
    *("keller", "lane", "mason", "novak", "ortega", "porter", "quill", "reed", "singer", "turner"),
    *("usher", "vale", "weaver", "xu", "york", "zola", "ash", "brook", "cole", "drake", "ember"),
    *("frost", "glen", "hale", "ito", "jansen", "knight", "lark", "moss", "nash", "okoye", "pike"),
    *("rivera", "stone"),
)
NAMES = tuple(
    f"{_FIRST[n % len(_FIRST)]} {_LAST[(n + 5 * (n // len(_FIRST))) % len(_LAST)]}"
    for n in range(8 * len(_FIRST))
)
WORDS = _FIRST + _LAST
