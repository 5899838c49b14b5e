"""Tables by a published protocol: this pipeline, tuned gradient boosting, and what a paper reports."""
