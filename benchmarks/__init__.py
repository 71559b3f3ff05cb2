"""Speed, measured through the public API beside a raw side in the same run; ``make bench``."""
