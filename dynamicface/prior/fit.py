"""Shape, expression, pose and gaze from landmarks: one batched, bounded, robust Gauss-Newton.

Unusual here:
- G people x N frames are solved at once; a person's N frames share the shape. The shape block is eliminated last (Schur
  complement), so the cost grows linearly with frames and stills, photo sets and clips are the same call;
- residuals are measured in metres at the face's depth, so weights do not depend on resolution;
- the lids go with the eyes: without it the eyeLook channels take up what two people's lids differ by, each eye on its own;
- expression coefficients stay in [0, limit] because every step solves the bounded problem (`bounded_step`), not by clamping its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from .bounded_step import Shared, bounded_step
from .camera import rotation_from_vector
from .gaze import LOOK_NAMES, look_of_gaze
from .head import HeadModel
from .raster import vertex_normals

MESH = 468  # landmarks of the mesh; the ten after them are the irises
OUTER_EYES = (33, 263)


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit. Sigmas are standard deviations of what the data may do."""

    iterations: int = 8
    shape_sigma: float = 1.0  # of shape coefficients, in their own unit variance
    expression_sigma: float = 0.12
    expression_limit: float = 1.2
    look_sigma: float = 0.05  # of the eyeLook channels around what the irises say
    landmark_sigma_scale: float = 1.0  # landmark errors are correlated: raise it to trust the priors more
    outlier: float = 3.0  # Cauchy scale in landmark sigmas
    damping: float = 1e-3


@dataclass(frozen=True)
class LandmarkFit:
    """The solution for G people in N frames each."""

    shape: Tensor  # (G, S)
    expression: Tensor  # (G, N, 52)
    rotation: Tensor  # (G, N, 3, 3)
    translation: Tensor  # (G, N, 3)
    gaze: Tensor  # (G, N, 2, 2)
    projected: Tensor  # (G, N, 478, 2) px
    error: Tensor  # (G, N) mean distance over the 468 mesh points / outer-eye distance, which a turn does not shorten


def landmark_bases(head: HeadModel) -> tuple[Tensor, Tensor, Tensor]:
    """The head model seen only at its landmarks: mean (L, 3), shape basis (S, L, 3), expression basis (E, L, 3)."""

    def at(points: Tensor) -> Tensor:
        return (points[..., head.landmark_index, :] * head.landmark_weight[..., None]).sum(-2)

    return at(head.template) + head.landmark_bias, at(head.shape_basis), at(head.expression_basis)


@lru_cache(maxsize=4)
def landmark_normals(head: HeadModel) -> Tensor:
    """(478, 3) unit surface normals of the mean head at its landmarks."""
    normal = vertex_normals(head.template[None], head.faces)[0]
    return F.normalize((normal[head.landmark_index] * head.landmark_weight[..., None]).sum(1), dim=-1)


def fit_landmarks(
    landmarks: Tensor,
    head: HeadModel,
    focal: Tensor,
    centre: Tensor,
    *,
    weight: Tensor | None = None,
    shape: Tensor | None = None,
    settings: FitSettings | None = None,
) -> LandmarkFit:
    """Fit the head model to landmarks.

    landmarks: (G, N, 478, 2) px. focal: (G, N) px. centre: (2,) principal point, px. weight: (G, N) or (G, N, 478) 0..1, how far to
    believe a frame or a point. shape: (G, S) to hold the identity fixed, else it is solved, one per person.
    """
    settings = settings or FitSettings()
    mean, shape_basis, expression_basis = (b[..., :MESH, :] for b in landmark_bases(head))
    groups, frames = landmarks.shape[:2]
    points = landmarks[:, :, :MESH] - centre
    sigma = head.landmark_sigma[:MESH].clamp(1.2e-3, 2e-2) * settings.landmark_sigma_scale
    trust = 1 / sigma.expand(groups, frames, MESH)
    if weight is not None:
        trust = trust * (weight[..., None] if weight.dim() == 2 else weight[..., :MESH]).clamp_min(1e-3)
    solve_shape = shape is None
    identity = points.new_zeros(groups, len(shape_basis)) if solve_shape else shape
    expression = points.new_zeros(groups, frames, len(expression_basis))
    rest = mean + einsum(identity, shape_basis, "g s, s l c -> g l c")
    rotation, translation = _scaled_orthographic_pose(rest[:, None].expand(-1, frames, -1, -1), points, trust[..., None], focal)

    count = expression.shape[-1]
    prior = torch.cat([points.new_full((count,), settings.expression_sigma**-2), points.new_full((6,), 1e-6)])
    expected = points.new_zeros(groups, frames, len(prior))
    look = [head.expression_names.index(name) for name in LOOK_NAMES if name in head.expression_names]
    prior[look] = settings.look_sigma**-2
    shape_prior = settings.shape_sigma**-2
    shape_ridge = (shape_prior + settings.damping) * torch.eye(len(shape_basis), dtype=points.dtype, device=points.device)
    bound = torch.zeros_like(prior).expand(groups, frames, -1)
    for _ in range(settings.iterations):
        model = (
            mean
            + einsum(identity, shape_basis, "g s, s l c -> g l c")[:, None]
            + einsum(expression, expression_basis, "g n e, e l c -> g n l c")
        )
        turned = model @ rotation.mT
        residual, pixel_jacobian, metre = _project(turned + translation[..., None, :], points, focal)
        scaled = residual.norm(dim=-1) * metre[..., None] * trust
        row = (trust * metre[..., None] / torch.sqrt(1 + (scaled / settings.outlier) ** 2))[..., None]
        jacobian = pixel_jacobian * row[..., None]  # (G, N, L, 2, 3)
        model_jacobian = jacobian @ rotation[..., None, :, :]
        error = residual * row
        of_frame = points.new_empty(groups, frames, MESH, 2, count + 7)
        of_frame[..., :count] = einsum(model_jacobian, expression_basis, "g n l i c, e l c -> g n l i e")
        of_frame[..., count : count + 3] = jacobian @ _minus_skew(turned)
        of_frame[..., count + 3 : -1] = jacobian
        of_frame[..., -1] = error  # a last column beside the per-frame unknowns: one pass gives normal matrix and gradient
        local = of_frame.flatten(2, 3)
        product = local.mT @ local

        state = torch.cat([expression, expression.new_zeros(groups, frames, 6)], -1)
        if len(look) == len(LOOK_NAMES):
            expected[..., look] = look_of_gaze(_gaze(head, identity, rotation, translation, landmarks - centre, focal))
        normal = product[..., :-1, :-1] + torch.diag(prior + settings.damping)
        gradient = product[..., :-1, -1] + prior * (state - expected)
        low, high = F.pad(-expression, (0, 6), value=-torch.inf), F.pad(settings.expression_limit - expression, (0, 6), value=torch.inf)
        shared = None
        if solve_shape:
            of_shape = rearrange(einsum(model_jacobian, shape_basis, "g n l i c, s l c -> g n l i s"), "g n l i s -> g n (l i) s")
            shape_gradient = einsum(of_shape, error.flatten(2), "g n p s, g n p -> g s") + shape_prior * identity
            shared = Shared(local[..., :-1].mT @ of_shape, (of_shape.mT @ of_shape).sum(1) + shape_ridge, shape_gradient)
        step, shape_step, bound = bounded_step(normal, gradient, low, high, bound, shared)
        if shape_step is not None:
            identity = identity + shape_step
        expression = (expression + step[..., :count]).clamp(0, settings.expression_limit)
        rotation = rotation_from_vector(step[..., count : count + 3]) @ rotation
        translation = translation + step[..., count + 3 :]

    vertices = head.vertices(identity[:, None].expand(-1, frames, -1), expression)
    camera = head.landmarks(vertices) @ rotation.mT + translation[..., None, :]
    projected = _screen(camera, focal) + centre
    gaze = _gaze(head, identity, rotation, translation, landmarks - centre, focal)
    distance = (projected - landmarks)[:, :, :MESH].norm(dim=-1).mean(-1)
    eyes = (camera[:, :, OUTER_EYES[0]] - camera[:, :, OUTER_EYES[1]]).norm(dim=-1) * focal / -translation[..., 2]
    return LandmarkFit(identity, expression, rotation, translation, gaze, projected, distance / eyes)


def _screen(camera: Tensor, focal: Tensor) -> Tensor:
    """(G, N, L, 3) camera points to pixels from the principal point, y down."""
    scale = focal[..., None, None] / -camera[..., 2:]
    return torch.cat([camera[..., :1], -camera[..., 1:2]], -1) * scale


def _project(camera: Tensor, points: Tensor, focal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residual (G, N, L, 2) px, its derivative by the camera point (G, N, L, 2, 3), and metres a pixel spans (G, N)."""
    x, y, z = camera.unbind(-1)
    scale = focal[..., None] / -z
    zero = torch.zeros_like(x)
    jacobian = torch.stack([scale, zero, scale * x / -z, zero, -scale, -scale * y / -z], -1).unflatten(-1, (2, 3))
    return _screen(camera, focal) - points, jacobian, -z.mean(-1) / focal


def _minus_skew(v: Tensor) -> Tensor:
    """(.., 3) -> (.., 3, 3) so that the matrix times w equals w x v."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).unflatten(-1, (3, 3))


def _scaled_orthographic_pose(model: Tensor, points: Tensor, trust: Tensor, focal: Tensor) -> tuple[Tensor, Tensor]:
    """A first pose from an affine fit: model (G, N, L, 3), points (G, N, L, 2) px from the principal point, trust (G, N, L, 1)."""
    flip = points.new_tensor([1.0, -1.0])
    share = trust / trust.sum(-2, keepdim=True)
    centre_model, centre_points = (share * model).sum(-2, keepdim=True), (share * points).sum(-2, keepdim=True)
    x, y = model - centre_model, (points - centre_points) * flip
    affine = torch.linalg.solve(x.mT @ (share * x), x.mT @ (share * y)).mT  # (G, N, 2, 3)
    u, s, vh = torch.linalg.svd(affine, full_matrices=False)
    rows = u @ vh
    rotation = torch.cat([rows, torch.linalg.cross(rows[..., 0, :], rows[..., 1, :])[..., None, :]], -2)
    depth = focal / s.mean(-1)
    place = centre_points[..., 0, :] * flip * (depth / focal)[..., None]
    translation = torch.cat([place, -depth[..., None]], -1) - (rotation @ centre_model.mT)[..., 0]
    return rotation, translation


def _gaze(head: HeadModel, identity: Tensor, rotation: Tensor, translation: Tensor, points: Tensor, focal: Tensor) -> Tensor:
    """Yaw and pitch (G, N, 2, 2) of the eyeballs: the ray through each iris centre is met with the eyeball's sphere."""
    centre, radius = head.eyes(identity)  # (G, 2, 3), (G, 2)
    camera = centre[:, None] @ rotation.mT + translation[..., None, :]
    iris = torch.stack([points[:, :, 473:478].mean(2), points[:, :, 468:473].mean(2)], 2)  # left, right
    ray = torch.cat([iris * iris.new_tensor([1.0, -1.0]) / focal[..., None, None], -torch.ones_like(iris[..., :1])], -1)
    ray = F.normalize(ray, dim=-1)
    along = (ray * camera).sum(-1)
    miss = (camera.square().sum(-1) - along.square()).clamp_min(0)
    inside = (radius[:, None].square() * 0.98 - miss).clamp_min(0)
    surface = ray * (along - inside.sqrt())[..., None]
    direction = F.normalize(surface - camera, dim=-1) @ rotation  # rows times R = R^T columns
    x, y, z = direction.unbind(-1)
    return torch.stack([torch.atan2(x, z), torch.asin(y.clamp(-1, 1))], -1)
