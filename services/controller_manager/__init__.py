"""The controllers: loops that bring what is nearer to what is wanted.

Each controller is two files in `controllers/<kind>/`: `plan.py` decides (observed state and a clock in, a list of
actions out; no I/O), and `controller.py` watches, calls the plan and has its actions carried out. What they share is
here: `actions` (what a plan may ask for), `apply` (carrying it out in batches, and remembering it so that nobody plans
on a cache that does not show it yet), `informers` and `views` (one watch a kind, holding only the fields that some
controller reads), `reconciler` (the base of the shells), and pure knowledge of pods, templates, ownership and
revisions. `registry` is the one table of controllers, `manager` runs them while this process leads, `service` answers
for them.

Read first: `controllers/replicaset/plan.py`, then `controllers/replicaset/controller.py`, then `reconciler.py`.
No decision is made outside of plans, and no kind's knowledge belongs outside of its folder.
"""
