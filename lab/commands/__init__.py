"""The commands of `cutaway`, a file a subject; `lab/cli.py` is the table of them.

Each module has `add_to(app)`. A command reads its arguments, calls the module of `lab` that does the work, and prints.
That module is loaded inside the command: who asks for one thing must not wait for the imports of all.
"""

import gc

# Loading what a command needs makes many objects and no garbage: not worth looking through them again and again.
gc.set_threshold(50_000, 50, 100)
