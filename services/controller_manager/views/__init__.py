"""Objects as controllers see them: the fields that some controller reads, and nothing else.

Whole models of 10,000 pods alone take 98 MB; their views take a fifth of that, and what is not declared is skipped
unread. A view is never written back: writes are patches, so that no field is lost that a view does not know. Views are
never changed in place.
"""
