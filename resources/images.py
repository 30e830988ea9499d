"""The image store as Dagster configures it; what it does is in ``resources.image_files``."""

import dagster as dg

from resources.image_files import ImageFiles


class ImageStore(ImageFiles, dg.ConfigurableResource):
    """Bytes by key below one URL: ``file:///var/lib/quire/store``, ``s3://bucket/prefix``."""

    url: str
