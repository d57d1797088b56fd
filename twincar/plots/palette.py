"""The one palette, of the page and of every figure: hex colours, and nothing has to be imported to know them.

Violet and amber are the ends of inferno, the colours of the evidence. Each of CATEGORICAL stands out from white and
from the page's dark ground (3 to 1), and people who are blind to one of the primary colours tell them apart; a test
says so.
"""

CATEGORICAL = ("#8440e0", "#d4801b", "#0c735c", "#ee4aa4", "#5093f4")  # in the order to take them
VIOLET, AMBER, TEAL, PINK, BLUE = CATEGORICAL
GREY = "#857b95"  # for what is not the point

SEQUENTIAL = "inferno"  # as matplotlib and Plotly call it: dark is little, bright is much
DIVERGING = ("#8440e0", "#c4a2ef", "#f6f2fb", "#efc38a", "#d4801b")  # violet is below the middle, amber above

INK, SUBDUED, RULE, GROUND = "#1b1328", "#5a506c", "#e5e0ec", "#ffffff"  # text, lesser text, grid, paper
DARK_INK, DARK_SUBDUED, DARK_RULE, DARK_GROUND = "#f3f0f7", "#b6abc6", "#392e4b", "#1b1328"

SPLITS = {"train": VIOLET, "val": AMBER, "test": TEAL, "holdout": GREY}
