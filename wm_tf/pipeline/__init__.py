"""A whole run: its folder, its stages, its SavedModels, and the procedure made of them.

collect -> V -> encode -> M -> export -> C -> export, and again with the new controller
"""
