"""Results as text, HTML and charts: columns and findings defined once, for all of them."""

import logging

# Where its own folder cannot be written to, matplotlib takes another, and says so at length.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
