"""`python -m gateway` is the command `pipeline-gateway`."""

import sys

from gateway.cli.main import main

sys.exit(main())
