"""For notebooks and scripts: load the champion, score people, say why, read the warehouse's tables.

What belongs here reads a home and changes nothing in it: the graph decides who serves, and this follows.
What may be used from outside is what ``poleng_assets/__init__.py`` names; the rest of the package may change.
"""

from poleng_assets.api.explanation import Explanation
from poleng_assets.api.model import LoadedModel, NoChampion, load_champion
from poleng_assets.api.warehouse import in_words, load_study, read_table, tables
from poleng_assets.core.features.encoder import EncodingError
from poleng_assets.models.artifacts import ModelUnusable
from poleng_assets.models.store import RegistryUnusable
from poleng_assets.study.schema import StudyError
from poleng_assets.warehouse.connection import WarehouseBusy, WarehouseUnusable

__all__ = [
    "EncodingError",
    "Explanation",
    "LoadedModel",
    "ModelUnusable",
    "NoChampion",
    "RegistryUnusable",
    "StudyError",
    "WarehouseBusy",
    "WarehouseUnusable",
    "in_words",
    "load_champion",
    "load_study",
    "read_table",
    "tables",
]
