"""The functions of a model, found by the model's name in params.yaml."""

from ostinato import params
from ostinato.errors import ParamsError
from ostinato.task import Model


def load(domain: str, name: str) -> Model:
    """The functions of a model's module, with Keras' ``save`` and ``restore`` as defaults.

    Raises:
        ParamsError: there is no such module, or it has no build or no fit.
    """
    found = params.model_module(domain, name)
    for needed in ("build", "fit"):
        if not hasattr(found, needed):
            raise ParamsError(f"{found.__name__}: {name!r} is no model: it has no {needed}")
    save, restore = getattr(found, "save", None), getattr(found, "restore", None)
    if save is None or restore is None:
        from ostinato.training import keras_model

        save, restore = save or keras_model.save, restore or keras_model.restore
    return Model(found.build, found.fit, save, restore)
