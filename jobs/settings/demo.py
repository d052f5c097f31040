"""Settings of `demo`."""

from pydantic import Field

from pipeline.settings.shared import NoSettings


class DemoSettings(NoSettings):
    """Where the demo draws and labels."""

    folder: str = Field("demo", description="where to draw and label")
