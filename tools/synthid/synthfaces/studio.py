"""The Blender scene: objects are made once, then moved and dressed for each photograph."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from mathutils import Vector

from . import glasses as frames
from . import hair, materials, skin
from .figure import SENSOR, Figure, camera_centre
from .geometry import eyeball, pose, rotation, to_blender, vertex_normals
from .shot import HDRIS

if TYPE_CHECKING:
    from .base import Floats
    from .person import Person
    from .shot import Lamp, Light, Shot

HELPERS = {
    "teeth_u": "teeth",
    "teeth_d": "teeth",
    "tongue": "tongue",
    "lash_l": "lash",
    "lash_r": "lash",
}
LAMPS = 3
LAMP_DISTANCE = 9.0  # dm
LAMP_WATTS = 420.0
CLOTH_DISTANCE = 0.035  # dm above the skin


class Studio:
    """Renders linear RGBA photographs of people."""

    def __init__(self, size: int, samples: int, threads: int) -> None:
        self.size = size
        self.figure = Figure()
        self.chart = skin.Chart(self.figure.outer_head)
        self.scene = _new_scene(size, samples, threads)
        self.materials = {name: bpy.data.materials.new(name) for name in materials.NAMES}
        self.camera = self._object("camera", bpy.data.cameras.new("camera"))
        self.scene.camera = self.camera
        self.lamps = [
            self._object(f"lamp{i}", bpy.data.lights.new(f"lamp{i}", "AREA")) for i in range(LAMPS)
        ]
        self._build_world()
        self._build_body()
        self._build_parts()
        self._build_eyes()
        self.passing: list[Any] = []
        self.textures: dict[str, Any] = {}

    # ---------- once ----------

    def _object(self, name: str, data: Any) -> Any:
        made = bpy.data.objects.new(name, data)
        self.scene.collection.objects.link(made)
        return made

    def _mesh(self, name: str, points: Floats, faces: Any, material: str, smooth: int) -> Any:
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(to_blender(points).tolist(), [], [list(map(int, f)) for f in faces])
        mesh.polygons.foreach_set("use_smooth", np.ones(len(mesh.polygons), bool))
        mesh.materials.append(self.materials[material])
        made = self._object(name, mesh)
        if smooth:
            modifier = made.modifiers.new("smooth", "SUBSURF")
            modifier.levels = modifier.render_levels = smooth
        return made

    def _build_world(self) -> None:
        world = self.scene.world = bpy.data.worlds.new("world")
        world.use_nodes = True
        # The default builds a large importance map for every image, which costs a second.
        world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", 256
        nodes, link = world.node_tree.nodes, world.node_tree.links.new
        nodes.clear()
        output, self.sky = nodes.new("ShaderNodeOutputWorld"), nodes.new("ShaderNodeBackground")
        self.environment = nodes.new("ShaderNodeTexEnvironment")
        self.mapping = nodes.new("ShaderNodeMapping")
        direction = nodes.new("ShaderNodeTexCoord")
        link(direction.outputs["Generated"], self.mapping.inputs[0])
        link(self.mapping.outputs[0], self.environment.inputs[0])
        link(self.environment.outputs[0], self.sky.inputs[0])
        link(self.sky.outputs[0], output.inputs[0])
        folder = Path(bpy.utils.resource_path("LOCAL")) / "datafiles/studiolights/world"
        self.hdris = {name: bpy.data.images.load(str(folder / f"{name}.exr")) for name in HDRIS}
        self.scenery = {name: read_pixels(image)[..., :3] for name, image in self.hdris.items()}

    def _build_body(self) -> None:
        figure = self.figure
        self.body = self._mesh("body", figure.canonical, figure.quads, "skin", 2)
        for name, values in figure.regions.items():
            attribute = self.body.data.attributes.new(name, "FLOAT", "POINT")
            attribute.data.foreach_set("value", values.astype(np.float32))
        uv = skin.chart_uv(figure.canonical)[figure.quads]
        u = uv[..., 0]
        seam = (u.max(1) - u.min(1)) > 0.5
        u[seam] = np.where(u[seam] < 0.5, u[seam] + 1, u[seam])
        layer = self.body.data.uv_layers.new(name="chart")
        layer.data.foreach_set("uv", uv.astype(np.float32).ravel())
        low = figure.canonical[figure.quads][..., 1].max(1) < 6.6
        self.pullover = self._mesh("cloth", figure.canonical, figure.quads[low], "cloth", 2)
        canonical = self.pullover.data.attributes.new("canon", "FLOAT_VECTOR", "POINT")
        canonical.data.foreach_set("vector", figure.canonical.astype(np.float32).ravel())

    def _build_parts(self) -> None:
        self.parts = {}
        for name, material in HELPERS.items():
            used, faces = self.figure.mesh.part(name)
            points = self.figure.mesh.vertices[used]
            self.parts[name] = (self._mesh(name, points, faces, material, 1), used)

    def _build_eyes(self) -> None:
        """Spheres with the pole in front, and a cornea that bulges."""
        around = 40
        theta = np.concatenate([np.linspace(0, 0.62, 26), np.linspace(0.68, np.pi, 22)])
        phi = np.linspace(0, 2 * np.pi, around, endpoint=False)
        self.theta, self.phi = np.repeat(theta, around), np.tile(phi, len(theta))
        bulge = 1 + 0.055 * np.clip(1 - (self.theta / 0.52) ** 2, 0, 1)
        ring = np.sin(self.theta)
        sphere = [ring * np.cos(self.phi), ring * np.sin(self.phi), np.cos(self.theta)]
        self.sphere = np.stack(sphere, 1) * bulge[:, None]
        faces = [
            [r * around + c, (r + 1) * around + c, (r + 1) * around + (c + 1) % around,
             r * around + (c + 1) % around]
            for r in range(len(theta) - 1) for c in range(around)
        ]  # fmt: skip
        self.eyes = {}
        for side in ("eye_l", "eye_r"):
            self.eyes[side] = self._mesh(side, self.sphere, faces, "eye", 0)
            self.eyes[side].data.color_attributes.new("col", "FLOAT_COLOR", "POINT")

    # ---------- for each person ----------

    def set_person(self, person: Person) -> None:
        """Paint and shape a person."""
        self.person = person
        self.vertices = person.vertices(self.figure.mesh)
        self.maps = skin.make_maps(person, self.chart)
        self.skin_colour = skin.mean_colour(self.maps)
        materials.dress_person(self.materials, person, self.maps)
        self._texture("height", np.repeat(self.maps.height[..., None] * 20 + 0.5, 3, 2))
        colours = materials.eye_colours(person, self.theta, self.phi).ravel()
        for eye in self.eyes.values():
            eye.data.color_attributes["col"].data.foreach_set("color", colours)

    def _texture(self, label: str, pixels: Floats) -> None:
        """A new image each time: Cycles keeps the pixels of the old one otherwise."""
        old = self.textures.get(label)
        image = bpy.data.images.new(label, skin.WIDTH, skin.HEIGHT, float_buffer=True, is_data=True)
        image.colorspace_settings.name = "Non-Color"
        buffer = np.ones((skin.HEIGHT, skin.WIDTH, 4), np.float32)
        buffer[..., :3] = pixels
        image.pixels.foreach_set(buffer.ravel())
        image.update()
        self.textures[label] = image
        for node in self.materials["skin"].node_tree.nodes:
            if node.type == "TEX_IMAGE" and node.label == label:
                node.image = image
        if old:
            bpy.data.images.remove(old)

    # ---------- for each photograph ----------

    def render(self, shot: Shot, scratch: Path) -> Floats:
        """Linear RGBA (size, size, 4), premultiplied; ``scratch`` is an EXR file."""
        self._set_figure(shot)
        self._set_camera(shot)
        self._set_light(shot.light, camera_centre(shot)[0])
        self.scene.cycles.seed = shot.hair_seed % 10000
        self.scene.render.filepath = str(scratch)
        with _quiet():
            bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(str(scratch))
        pixels = read_pixels(image)
        bpy.data.images.remove(image)
        return pixels

    def _set_figure(self, shot: Shot) -> None:
        face = self.figure.expressed(self.vertices, shot)
        body = face[self.figure.used]
        _move(self.body, pose(body, shot))
        over = body + CLOTH_DISTANCE * vertex_normals(body, self.figure.quads)
        _move(self.pullover, pose(over, shot))
        for made, used in self.parts.values():
            _move(made, pose(face[used], shot))
        self.parts["tongue"][0].hide_render = shot.units.get("jawOpen", 0) < 0.12
        self._set_eyes(shot)
        self._tint_scalp(shot.style)
        materials.cloth(self.materials["cloth"], shot.clothes)
        self._clear()
        for strands in hair.grow_all(self.figure, body, self.person, shot):
            if len(strands.points):
                self._add_strands(strands, shot)
        if shot.glasses is not None:
            self._add_glasses(shot, body)

    def _set_eyes(self, shot: Shot) -> None:
        turn = np.clip(0.8 * shot.yaw, -22, 22) * shot.looks_at_camera
        down = 0.7 * shot.pitch * shot.looks_at_camera
        gaze = rotation(shot.gaze[0] - turn, -shot.gaze[1] - down, 0)
        for side, eye in self.eyes.items():
            centre, radius = eyeball(self.vertices, side)
            _move(eye, pose(self.sphere @ gaze.T * radius + centre, shot))

    def _tint_scalp(self, style: str) -> None:
        """The skin under hair has its colour, as far as the style has hair."""
        share = (self.maps.scalp * hair.SCALP_TINT.get(style, 0.92))[..., None]
        colour = np.array(self.person.hair.colour) * 0.8
        self._texture("albedo", self.maps.albedo * (1 - share) + colour * share)

    def _clear(self) -> None:
        for made in self.passing:
            data = made.data
            bpy.data.objects.remove(made)
            (
                bpy.data.hair_curves if isinstance(data, bpy.types.Curves) else bpy.data.meshes
            ).remove(data)
        self.passing = []

    def _add_strands(self, strands: hair.Strands, shot: Shot) -> None:
        count, steps, _ = strands.points.shape
        curves = bpy.data.hair_curves.new(strands.material)
        curves.add_curves([steps] * count)
        points = to_blender(pose(strands.points, shot)).astype(np.float32)
        curves.points.foreach_set("position", points.ravel())
        taper = np.tile(np.linspace(1, 0.35, steps), count) * strands.radius
        radius = curves.attributes.get("radius") or curves.attributes.new(
            "radius", "FLOAT", "POINT"
        )
        radius.data.foreach_set("value", taper.astype(np.float32))
        curves.materials.append(self.materials[strands.material])
        self.passing.append(self._object(strands.material, curves))

    def _add_glasses(self, shot: Shot, body: Floats) -> None:
        if shot.glasses is None:
            return
        temples = body[self.figure.regions["ears"] < 0.1]
        materials.plain(self.materials["frame"], shot.glasses.colour, 0.35)
        for line, closed in frames.frame_lines(shot.glasses, self.vertices, temples):
            points, faces = frames.tube(line, shot.glasses.tube, closed=closed)
            self.passing.append(self._mesh("frame", pose(points, shot), faces, "frame", 0))

    def _set_camera(self, shot: Shot) -> None:
        camera = self.camera.data
        camera.lens, camera.sensor_width, camera.clip_start = shot.focal, SENSOR, 0.05
        camera.shift_x, camera.shift_y = shot.shift
        self.camera.location = to_blender(camera_centre(shot)[1]).tolist()
        self.camera.rotation_euler = (math.pi / 2 - math.radians(shot.camera_pitch), 0, 0)

    def _set_light(self, light: Light, centre: Floats) -> None:
        self.environment.image = self.hdris[light.hdri]
        self.mapping.inputs["Rotation"].default_value = (0, 0, math.radians(light.turn))
        self.sky.inputs[1].default_value = light.gain
        for i, lamp in enumerate(self.lamps):
            lamp.hide_render = i >= len(light.lamps)
            if not lamp.hide_render:
                _set_lamp(lamp, light.lamps[i], centre)


@contextmanager
def _quiet() -> Iterator[None]:
    """Blender writes to the file descriptor of standard output, out of Python's reach."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _new_scene(size: int, samples: int, threads: int) -> Any:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    cycles.device, cycles.samples = "CPU", samples
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.02
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = "FAST"
    cycles.max_bounces, cycles.transparent_max_bounces = 5, 6
    cycles.diffuse_bounces = cycles.glossy_bounces = cycles.transmission_bounces = 2
    cycles.caustics_reflective = cycles.caustics_refractive = False
    render.threads_mode, render.threads = "FIXED", threads
    render.resolution_x = render.resolution_y = size
    render.film_transparent = True
    render.use_persistent_data = False  # it would keep textures of the person before
    render.image_settings.file_format = "OPEN_EXR"
    render.image_settings.color_mode, render.image_settings.color_depth = "RGBA", "32"
    scene.cycles_curves.shape, scene.cycles_curves.subdivisions = "RIBBONS", 1
    return scene


def read_pixels(image: Any) -> Floats:
    """Linear RGBA, rows from the top."""
    width, height = image.size
    buffer = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(buffer)
    return buffer.reshape(height, width, 4)[::-1].copy()


def _move(made: Any, points: Floats) -> None:
    made.data.vertices.foreach_set("co", to_blender(points).astype(np.float32).ravel())
    made.data.update()


def _set_lamp(made: Any, lamp: Lamp, centre: Floats) -> None:
    azimuth, elevation = math.radians(lamp.azimuth), math.radians(lamp.elevation)
    flat = math.cos(elevation)
    direction = np.array([math.sin(azimuth) * flat, math.sin(elevation), math.cos(azimuth) * flat])
    made.location = to_blender(centre + LAMP_DISTANCE * direction).tolist()
    look = Vector(to_blender(centre).tolist()) - made.location
    made.rotation_euler = look.to_track_quat("-Z", "Y").to_euler()
    made.data.size, made.data.energy = lamp.size, LAMP_WATTS * lamp.energy
    made.data.color = (1 + lamp.warmth, 1, 1 - lamp.warmth)
