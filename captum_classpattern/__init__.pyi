from . import adapters as adapters
from . import comparison as comparison
from . import datasets as datasets
from . import demo as demo
from . import metrics as metrics
from . import report as report
from . import survey as survey
from . import triggers as triggers
from . import visualization as visualization
from .attribution import ClassPattern as ClassPattern
from .canvases import select_canvases as select_canvases
from .classifier import PixelClassifier as PixelClassifier
from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .comparison import known_methods as known_methods
from .metrics import PredictivePower as PredictivePower
from .metrics import predictive_power as predictive_power
from .pattern import Pattern as Pattern
from .search import SearchResult as SearchResult
from .search import search_masks as search_masks
from .visualization import plot_patterns as plot_patterns

__version__: str
