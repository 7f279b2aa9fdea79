"""What ComfyUI sees: sockets, folders and nodes. The method is in `infinite_id`."""

from comfy_api.latest import ComfyExtension, io

from . import folders
from .apply import ApplyInfiniteID
from .apply_staged import ApplyStagedIdentity
from .column_mask import ColumnMask
from .contact_sheet import ContactSheet
from .diagnose import Diagnose
from .encode import Encode
from .export_staged import ExportStagedIdentity
from .faces import CropFaces, FaceMasks, PasteFaces
from .grid import GridOfVariations
from .identity import EncodeIdentity
from .identity_files import LoadIdentity, SaveIdentity
from .identity_gallery import IdentityGallery
from .learn_embedding import LearnEmbedding
from .learn_staged import LearnStagedIdentity
from .load import LoadFaceAnalysis, LoadInfiniteIDModel
from .load_preset import UnifiedLoader
from .lora import ApplyFaceIDLoRA
from .mix_embeddings import MixEmbeddings
from .mixing import BlendIdentities, MixIdentities
from .refine_faces import RefineFaces
from .regional_prompt import RegionalPrompt
from .save_time import SaveTime
from .scores import PickBest, ScorePictures
from .similarity import FaceSimilarity
from .staged_prompt import StagedIdentityPrompt
from .training import RefineIdentity, TrainAdapter


class InfiniteIDExtension(ComfyExtension):
    """The extension that the host loads: it registers the folders and lists the nodes."""

    async def on_load(self) -> None:
        folders.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            UnifiedLoader,
            LoadInfiniteIDModel,
            LoadFaceAnalysis,
            Encode,
            EncodeIdentity,
            ApplyInfiniteID,
            ApplyFaceIDLoRA,
            MixIdentities,
            BlendIdentities,
            SaveIdentity,
            LoadIdentity,
            IdentityGallery,
            FaceMasks,
            ColumnMask,
            RegionalPrompt,
            FaceSimilarity,
            PickBest,
            ScorePictures,
            CropFaces,
            PasteFaces,
            RefineFaces,
            ContactSheet,
            GridOfVariations,
            SaveTime,
            TrainAdapter,
            RefineIdentity,
            LearnEmbedding,
            MixEmbeddings,
            LearnStagedIdentity,
            StagedIdentityPrompt,
            ApplyStagedIdentity,
            ExportStagedIdentity,
            Diagnose,
        ]


async def comfy_entrypoint() -> InfiniteIDExtension:
    """Return the extension; the host calls this once."""
    return InfiniteIDExtension()
