"""Results as text, HTML and charts: columns and findings are defined once for all three."""

import logging

# If its own folder is not writable, matplotlib uses another one and prints long warnings.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
