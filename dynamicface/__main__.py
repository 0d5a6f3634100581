"""python -m dynamicface"""

import sys

from .cli import main

sys.exit(main())
