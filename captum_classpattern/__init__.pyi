from . import adapters as adapters
from . import comparison as comparison
from . import datasets as datasets
from . import demo as demo
from . import optimization as optimization
from . import report as report
from . import scores as scores
from . import surveys as surveys
from . import triggers as triggers
from . import visualization as visualization
from ._validation import Notice as Notice
from .attribution import ClassPattern as ClassPattern
from .canvases import select_canvases as select_canvases
from .classifier import PixelClassifier as PixelClassifier
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .comparison import known_methods as known_methods
from .images import LabelledImages as LabelledImages
from .optimization import SearchResult as SearchResult
from .optimization import search_masks as search_masks
from .pattern import Pattern as Pattern
from .scores import PredictivePower as PredictivePower
from .scores import predictive_power as predictive_power
from .surveys import Survey as Survey
from .surveys import survey as survey
from .visualization import plot_patterns as plot_patterns

__version__: str
