"""Draws a session. One visual idea: the frame around the dream has the colour of who drives it.

Orange and a circle are the person, blue and a diamond the controller; everything else is grey.
"""
