"""The color palette of the page and of all figures, as hex colors. Imports nothing.

Violet and amber are the ends of inferno, the colormap of the heatmaps. The tests check that each color of CATEGORICAL
has a contrast of at least 3:1 to the light and to the dark background, and that the colors can be distinguished with
each form of color blindness.
"""

CATEGORICAL = ("#8440e0", "#d4801b", "#0c735c", "#ee4aa4", "#5093f4")  # in order of use
VIOLET, AMBER, TEAL, PINK, BLUE = CATEGORICAL
GREY = "#857b95"  # for secondary marks

SEQUENTIAL = "inferno"  # a colormap of matplotlib and Plotly: dark is low, bright is high
DIVERGING = ("#8440e0", "#c4a2ef", "#f6f2fb", "#efc38a", "#d4801b")  # violet is below the middle, amber above

INK, SUBDUED, RULE, GROUND = "#1b1328", "#5a506c", "#e5e0ec", "#ffffff"  # text, secondary text, grid, background
DARK_INK, DARK_SUBDUED, DARK_RULE, DARK_GROUND = "#f3f0f7", "#b6abc6", "#392e4b", "#1b1328"

SPLITS = {"train": VIOLET, "val": AMBER, "test": TEAL, "holdout": GREY}
