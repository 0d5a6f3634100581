"""The rasteriser: coverage, depth order, perspective-correct interpolation, batching."""

import torch

from dynamicface.prior.raster import rasterise, vertex_normals

QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])  # counter-clockwise with y up


def quad(x0: float, y0: float, x1: float, y1: float, depth: tuple[float, float] = (1.0, 1.0)) -> torch.Tensor:
    """Corners (4, 3) on the y-down screen; the left edge at depth[0], the right at depth[1]."""
    near, far = depth
    return torch.tensor([[x0, y1, near], [x1, y1, far], [x1, y0, far], [x0, y0, near]])


def test_pixel_centres_decide_coverage():
    raster = rasterise(quad(2.0, 1.0, 6.0, 4.0)[None], QUAD, (8, 8))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:4, 2:6] = True
    assert torch.equal(raster.mask[0], expected)


def test_nearer_surface_wins_and_back_faces_are_culled():
    screen = torch.cat([quad(0, 0, 8, 8, (2.0, 2.0)), quad(2, 2, 6, 6)])
    both = torch.cat([QUAD, QUAD + 4])
    front = rasterise(screen[None], both, (8, 8)).face[0]
    assert (front[2:6, 2:6] >= 2).all() and (front[0] < 2).all() and (front >= 0).all()
    flipped = torch.cat([QUAD, (QUAD + 4).flip(1)])
    assert (rasterise(screen[None], flipped, (8, 8)).face[0] < 2).all()
    assert (rasterise(screen[None], flipped, (8, 8), cull=False).face[0, 2:6, 2:6] >= 2).all()


def test_interpolation_is_perspective_correct():
    raster = rasterise(quad(0, 0, 64, 4, (1.0, 4.0))[None], QUAD, (4, 64))
    u = torch.tensor([[0.0], [1.0], [1.0], [0.0]])
    at = (torch.arange(64) + 0.5) / 64  # screen position; u / depth and 1 / depth are linear on screen
    expected = (at / 4) / ((1 - at) / 1 + at / 4)
    torch.testing.assert_close(raster.interpolate(u)[0, 2, :, 0], expected, atol=1e-5, rtol=0)


def test_no_pinholes_between_small_triangles_far_from_the_origin():
    n = 200
    grid = torch.linspace(1800.3, 1999.7, n)
    x, y = torch.meshgrid(grid, grid, indexing="xy")
    screen = torch.stack([x, y, torch.ones_like(x)], -1).reshape(1, -1, 3)
    k = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    faces = torch.cat([torch.stack([k, k + n, k + n + 1], 1), torch.stack([k, k + n + 1, k + 1], 1)])
    mask = rasterise(screen, faces, (2000, 2000)).mask[0]
    assert mask[1801:1999, 1801:1999].all()


def test_batch_equals_single_frames():
    torch.manual_seed(0)
    screen = torch.cat([torch.rand(5, 30, 2) * 32, torch.rand(5, 30, 1) + 1], -1)
    faces = torch.randint(0, 30, (40, 3))
    batch = rasterise(screen, faces, (32, 32), cull=False)
    colour = torch.rand(5, 30, 3)
    for f in range(5):
        single = rasterise(screen[f : f + 1], faces, (32, 32), cull=False)
        assert torch.equal(batch.face[f], single.face[0])
        torch.testing.assert_close(batch.interpolate(colour)[f], single.interpolate(colour[f : f + 1])[0])


def test_barycentrics_carry_gradients():
    screen = quad(0.2, 0.3, 7.1, 7.4, (1.0, 2.0))[None].requires_grad_()
    rasterise(screen, QUAD, (8, 8)).interpolate(torch.rand(4, 3)).sum().backward()
    assert torch.isfinite(screen.grad).all() and screen.grad.abs().sum() > 0


def test_empty_picture_where_nothing_is_visible():
    raster = rasterise(quad(100, 100, 120, 120)[None], QUAD, (16, 16))
    assert not raster.mask.any()
    assert raster.interpolate(torch.rand(4, 3), 0.25).eq(0.25).all()


def test_normals_of_a_sphere_point_outwards():
    n = 24
    theta, phi = torch.meshgrid(torch.linspace(0.05, 3.09, n), torch.linspace(0, 6.2832, n), indexing="ij")
    points = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], -1).reshape(1, -1, 3)
    k = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1)
    faces = torch.cat([torch.stack([k, k + n, k + n + 1], 1), torch.stack([k, k + n + 1, k + 1], 1)])
    normal = vertex_normals(points, faces)
    inner = (theta > 0.2).logical_and(theta < 2.9).reshape(-1)
    assert ((normal[0] * points[0]).sum(-1)[inner] > 0.98).all()
