"""Why a network answers as it does: by gradients, by what is hidden, by its layers.

Each way is a function of a module, of a network, its variables, float images `[B, H, W, 3]` in [0, 1] and the class of
each to explain: `grad_cam.grad_cam(model, variables, images, labels)` is `[B, H, W]`. `explain` makes all figures of
runs; it is imported when it is first used, so that a command's `--help` does not wait for JAX.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from jaxfood.evaluation.explanations.explaining import explain as explain
    from jaxfood.evaluation.explanations.explaining import explain_pictures as explain_pictures
