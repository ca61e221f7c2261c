"""What holds for every test process: how signals reach the children that tests start."""

from __future__ import annotations

import signal
from types import FrameType

# A shell that is not interactive starts background jobs (`scripts/test &`, CI runners) with SIGINT ignored, an ignored
# signal stays ignored across exec, and Python then never installs its own handler: the children of such a pytest would
# sit out the Ctrl-C that a test sends them. A signal that is *caught* is reset to its default at exec; so catch it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:

    def _stay(_number: int, _frame: FrameType | None) -> None:
        """What starts us in the background does not want us interrupted."""

    signal.signal(signal.SIGINT, _stay)
