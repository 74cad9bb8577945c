"""Shaders: skin with lips and mouth, eyes, lashes, teeth, hair, cloth, frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from . import skin as skins

if TYPE_CHECKING:
    from .base import Floats
    from .person import Person
    from .shot import Clothes

NAMES = ("skin", "eye", "lash", "teeth", "tongue", "hair", "brow", "beard", "cloth", "frame")
SOCKET = bpy.types.NodeSocket


def rgba(colour: Any) -> tuple[float, ...]:
    """A colour as Blender wants it."""
    return (*map(float, colour), 1.0)


class Nodes:
    """Wires the shader nodes of a material."""

    def __init__(self, material: Any) -> None:
        material.use_nodes = True
        self.tree = material.node_tree
        self.tree.nodes.clear()
        self.output = self.new("ShaderNodeOutputMaterial")

    def new(self, kind: str, **inputs: Any) -> Any:
        """A node; inputs are values or sockets, with _ for spaces in their names."""
        node = self.tree.nodes.new(kind)
        for name, value in inputs.items():
            self.plug(node.inputs[name.replace("_", " ")], value)
        return node

    def plug(self, socket: Any, value: Any) -> None:
        """Set or link an input."""
        if isinstance(value, SOCKET):
            self.tree.links.new(value, socket)
        else:
            socket.default_value = value

    def attribute(self, name: str) -> Any:
        """A node that reads an attribute of the mesh."""
        node = self.new("ShaderNodeAttribute")
        node.attribute_name = name
        return node

    def mix(self, factor: Any, a: Any, b: Any) -> Any:
        """A colour between two."""
        node = self.new("ShaderNodeMix")
        node.data_type = "RGBA"
        for index, value in ((0, factor), (6, a), (7, b)):
            self.plug(node.inputs[index], value)
        return node.outputs[2]

    def math(self, operation: str, a: Any, b: Any = 0.0) -> Any:
        """Arithmetic."""
        node = self.new("ShaderNodeMath")
        node.operation = operation
        self.plug(node.inputs[0], a)
        self.plug(node.inputs[1], b)
        return node.outputs[0]

    def mix_shaders(self, factor: Any, a: Any, b: Any) -> Any:
        """A shader between two."""
        node = self.new("ShaderNodeMixShader")
        for socket, value in zip(node.inputs, (factor, a, b), strict=True):
            self.plug(socket, value)
        return node.outputs[0]

    def finish(self, shader: Any) -> None:
        """The shader of the surface."""
        self.plug(self.output.inputs[0], shader)


def dress_person(materials: dict[str, Any], person: Person, maps: skins.Maps) -> None:
    """Everything whose colour belongs to the person."""
    _skin(Nodes(materials["skin"]), person, maps.albedo)
    _eye(Nodes(materials["eye"]))
    _lash(Nodes(materials["lash"]), person)
    plain(materials["teeth"], (0.55, 0.50, 0.41), 0.3)
    plain(materials["tongue"], (0.35, 0.08, 0.08), 0.4)
    _hair(Nodes(materials["hair"]), person.hair.colour)
    for name in ("brow", "beard"):
        _short_hair(Nodes(materials[name]), person.hair.brow_colour)


def plain(material: Any, colour: Any, roughness: float) -> None:
    """One colour."""
    nodes = Nodes(material)
    shader = nodes.new("ShaderNodeBsdfPrincipled", Base_Color=rgba(colour), Roughness=roughness)
    nodes.finish(shader.outputs[0])


def cloth(material: Any, clothes: Clothes) -> None:
    """A pullover that ends in a ribbed neckline; above it the material is not there."""
    nodes = Nodes(material)
    place = nodes.new("ShaderNodeSeparateXYZ")
    nodes.plug(place.inputs[0], nodes.attribute("canon").outputs["Vector"])
    x, y, z = place.outputs
    side = nodes.math("ABSOLUTE", x)
    line = nodes.math("SUBTRACT", clothes.neckline, nodes.math("MULTIPLY", z, 0.42))
    vee = nodes.math("MAXIMUM", 0.0, nodes.math("SUBTRACT", 0.45, side))
    front = nodes.math("GREATER_THAN", z, 0.3)
    line = nodes.math("SUBTRACT", line, nodes.math("MULTIPLY", front, nodes.math(
        "MULTIPLY", vee, clothes.vee)))  # fmt: skip
    inside = nodes.math("MAXIMUM", nodes.math("SUBTRACT", line, y), nodes.math(
        "SUBTRACT", side, 1.0))  # fmt: skip
    rib = nodes.math("LESS_THAN", inside, 0.09)
    darker = tuple(0.72 * c for c in clothes.colour)
    colour = nodes.mix(rib, rgba(clothes.colour), rgba(darker))
    weave = nodes.new("ShaderNodeTexNoise", Scale=28.0, Detail=3.0)
    bump = nodes.new("ShaderNodeBump", Strength=0.35, Distance=0.05, Height=weave.outputs[0])
    shader = nodes.new(
        "ShaderNodeBsdfPrincipled", Base_Color=colour, Roughness=0.9, Normal=bump.outputs[0]
    )
    shader.inputs["Specular IOR Level"].default_value = 0.15
    gone = nodes.new("ShaderNodeBsdfTransparent")
    there = nodes.math("GREATER_THAN", inside, 0.0)
    nodes.finish(nodes.mix_shaders(there, gone.outputs[0], shader.outputs[0]))


def _lip_colour(person: Person, albedo: Floats) -> Floats:
    row = int((6.9 - skins.LOW) / (skins.HIGH - skins.LOW) * skins.HEIGHT)
    middle = skins.WIDTH // 2
    around = albedo[row, middle - 42 : middle + 42].mean(0)
    red, paint = person.skin.lip_red, 0.6 * min(person.skin.makeup, 1)
    pale, full = np.array([0.90, 0.68, 0.68]), np.array([0.84, 0.48, 0.51])
    colour = around * (pale * (1 - red) + full * red)
    return colour * (1 - paint) + np.array([0.35, 0.05, 0.06]) * paint


def _skin(nodes: Nodes, person: Person, albedo: Floats) -> None:
    uv = nodes.new("ShaderNodeUVMap")
    uv.uv_map = "chart"
    textures = {}
    for label in ("albedo", "height"):
        texture = textures[label] = nodes.new("ShaderNodeTexImage", Vector=uv.outputs[0])
        texture.label, texture.extension = label, "REPEAT"
    lips, inner = nodes.attribute("lips").outputs["Fac"], nodes.attribute("inner").outputs["Fac"]
    lip = rgba(_lip_colour(person, albedo))
    colour = nodes.mix(nodes.math("MULTIPLY", lips, 0.8), textures["albedo"].outputs[0], lip)
    colour = nodes.mix(inner, colour, (0.16, 0.03, 0.03, 1))
    rough = nodes.math("SUBTRACT", person.skin.rough, nodes.math("MULTIPLY", lips, 0.12))
    bump = nodes.new(
        "ShaderNodeBump", Strength=0.6, Distance=0.05, Height=textures["height"].outputs[0]
    )
    shader = nodes.new(
        "ShaderNodeBsdfPrincipled", Base_Color=colour, Roughness=rough, Normal=bump.outputs[0],
        Subsurface_Weight=0.12, Subsurface_Scale=0.03, Specular_IOR_Level=0.22,
    )  # fmt: skip
    shader.inputs["Subsurface Radius"].default_value = (1, 0.35, 0.2)
    nodes.finish(shader.outputs[0])


def _eye(nodes: Nodes) -> None:
    colour = nodes.attribute("col").outputs["Color"]
    shader = nodes.new("ShaderNodeBsdfPrincipled", Base_Color=colour, Roughness=0.08)
    nodes.finish(shader.outputs[0])


def _lash(nodes: Nodes, person: Person) -> None:
    colour = rgba(np.array(person.hair.brow_colour) * 0.4)
    gone = nodes.new("ShaderNodeBsdfTransparent").outputs[0]
    there = nodes.new("ShaderNodeBsdfDiffuse", Color=colour).outputs[0]
    nodes.finish(nodes.mix_shaders(0.3 + 0.3 * (not person.male), gone, there))


def _strand_colour(nodes: Nodes, colour: Any) -> Any:
    lot = nodes.new("ShaderNodeHairInfo").outputs["Random"]
    value = nodes.math("ADD", 0.65, nodes.math("MULTIPLY", lot, 0.7))
    return nodes.new("ShaderNodeHueSaturation", Color=rgba(colour), Value=value).outputs[0]


def _short_hair(nodes: Nodes, colour: Any) -> None:
    """Matte, and cheap to render."""
    tint = _strand_colour(nodes, colour)
    shader = nodes.new("ShaderNodeBsdfPrincipled", Base_Color=tint, Roughness=0.7)
    nodes.finish(shader.outputs[0])


def _hair(nodes: Nodes, colour: Any) -> None:
    shader = nodes.new("ShaderNodeBsdfHairPrincipled")
    shader.parametrization = "COLOR"
    values = {
        "Color": _strand_colour(nodes, colour),
        "Roughness": 0.45,
        "Radial Roughness": 0.6,
        "IOR": 1.38,
    }
    for name, value in values.items():
        nodes.plug(shader.inputs[name], value)
    nodes.finish(shader.outputs[0])


def eye_colours(person: Person, theta: Floats, phi: Floats) -> Floats:
    """RGBA of the vertices of an eyeball, by their angle from its pole and around it."""
    rng = np.random.default_rng(person.skin.seed + 1)
    colour = np.ones((len(theta), 4), np.float32)
    white = np.array([0.60, 0.55, 0.51]) * (1 - 0.15 * person.age)
    colour[:, :3] = white * (1 - 0.12 * np.clip(theta - 0.6, 0, 1))[:, None]
    streaks = 1 + 0.175 * np.sin(phi * 17 + rng.uniform(0, 6)) + 0.2 * np.sin(phi * 7)
    shade = np.interp(theta, [0.15, 0.3, 0.42, 0.47], [1.5, 1.1, 0.8, 0.25])
    inside = theta < 0.47
    colour[inside, :3] = (np.array(person.iris) * (streaks * shade)[:, None])[inside]
    colour[theta < 0.19, :3] = 0.004
    return colour
