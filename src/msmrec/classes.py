"""Every class that a config may name by its bare name: the parser knows those that were imported."""

from msmrec.ctr.head import LlamaCTR  # noqa: F401
from msmrec.ctr.tiny_llama import TinyLlama  # noqa: F401
from msmrec.data.sources.amazon import Amazon  # noqa: F401
from msmrec.data.sources.bookcrossing import BookCrossing  # noqa: F401
from msmrec.data.sources.hub import HubTable  # noqa: F401
from msmrec.data.sources.movielens import MovieLens  # noqa: F401
from msmrec.data.sources.simulated import Simulated  # noqa: F401
from msmrec.data.sources.table import Table  # noqa: F401
from msmrec.llm.local import LocalModel  # noqa: F401
from msmrec.llm.server import OpenAIServer  # noqa: F401
from msmrec.media.audio import ItemAudio, MfccStatistics  # noqa: F401
from msmrec.media.feature_file import FeatureFile  # noqa: F401
from msmrec.media.genres import GenreFeatures  # noqa: F401
from msmrec.media.image_networks import TransformersImageEncoder  # noqa: F401
from msmrec.media.images import ColourAndShape, ItemImages  # noqa: F401
from msmrec.media.resnet import ResNet50  # noqa: F401
from msmrec.media.text import TextFeatures  # noqa: F401
from msmrec.models.din import DIN  # noqa: F401
from msmrec.models.field_models import DCN, AutoInt, DCNv2, DeepFM, xDeepFM  # noqa: F401
from msmrec.models.kar import KAR  # noqa: F401
from msmrec.models.lightgcn import LightGCN  # noqa: F401
from msmrec.models.msmrec import MSMRec  # noqa: F401
from msmrec.models.popularity import Popularity  # noqa: F401
from msmrec.models.projector import Projector  # noqa: F401
from msmrec.models.sasrec import SASRec  # noqa: F401
from msmrec.recommend.feature_rerank import FeatureReranker  # noqa: F401
from msmrec.recommend.llm_rerank import LLMReranker  # noqa: F401
from msmrec.recommend.two_stage import TwoStage  # noqa: F401
from msmrec.retrieval.callback import RetrievalCallback  # noqa: F401
from msmrec.text.encoder import SentenceEncoder, TfidfSvdEncoder, TransformersEncoder  # noqa: F401
from msmrec.text.extractive import Extractive  # noqa: F401
from msmrec.text.server_encoder import ServerEncoder  # noqa: F401
from msmrec.text.writer import LLMWriter  # noqa: F401
