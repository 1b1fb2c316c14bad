"""The names under which Prefect knows what a pipeline makes."""

from prefect.assets import Asset, AssetProperties

__all__ = ["examples_asset", "model_asset", "table_asset"]


def examples_asset(pipeline: str) -> Asset:
    """Name the table of a pipeline's examples.

    >>> examples_asset("flights").key
    'headwater://flights/examples'
    """
    properties = AssetProperties(
        name=f"{pipeline}: examples", description="Every prediction with its label, by offset."
    )
    return Asset(key=f"headwater://{pipeline}/examples", properties=properties)


def model_asset(pipeline: str) -> Asset:
    """Name a pipeline's registered model, of which each materialisation is a version.

    >>> model_asset("flights").key
    'headwater://flights/model'
    """
    properties = AssetProperties(
        name=f"{pipeline}: model",
        url=f"models:/{pipeline}",
        description="The registered model in MLflow; the metadata names the version.",
    )
    return Asset(key=f"headwater://{pipeline}/model", properties=properties)


def table_asset(pipeline: str, table: str) -> Asset:
    """Name a table of batch features.

    >>> table_asset("shop", "spending").key
    'headwater://shop/features/spending'
    """
    properties = AssetProperties(
        name=f"{pipeline}: {table}", description="Batch features by entity key, for the service."
    )
    return Asset(key=f"headwater://{pipeline}/features/{table}", properties=properties)
