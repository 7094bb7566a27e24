#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: small files of the libraries, and headers that lie.

    make_seeds.py        needs NumPy, scikit-learn, joblib, skops, xgboost and lightgbm; run in the root of the repository
"""
import io
import json
import os
import pickle
import struct
import zipfile

import joblib
import lightgbm
import numpy as np
import skops.io
import xgboost
from sklearn.preprocessing import StandardScaler
out='tests/fuzz/seeds/describe/'
X=np.arange(40,dtype=float).reshape(20,2); y=(X[:,0]>20).astype(int)
m=xgboost.train({'max_depth':2,'nthread':1},xgboost.DMatrix(X,y),1); m.save_model(out+'small.json'); m.save_model(out+'small.ubj')
lightgbm.train({'num_leaves':3,'min_data_in_leaf':1,'verbose':-1,'num_threads':1},lightgbm.Dataset(X,y),1).save_model(out+'small.txt')
s=StandardScaler().fit(X)
for p in (0,2,5): pickle.dump(s,open(out+f'scaler-{p}.pkl','wb'),protocol=p)
joblib.dump([s,np.array([{'a':1}],dtype=object)],out+'scaler.joblib')
skops.io.dump(s,out+'scaler.skops')
z=zipfile.ZipFile(out+'small.keras','w'); z.writestr('metadata.json',json.dumps({'keras_version':'3.4.1','date_saved':'2026'})); z.writestr('config.json',json.dumps({'class_name':'Sequential','config':{'layers':[{'class_name':'Lambda'}]}})); z.close()
mal='tests/fuzz/seeds/malformed/'
w=lambda n,b: open(mal+n,'wb').write(b)
H=2**63; q=lambda n: struct.pack('<Q',n); I=lambda n: struct.pack('<I',n)
st=lambda h: q(len(h))+h
w('safetensors-length-2-63.safetensors',q(H)+b'{"a":')
w('safetensors-offsets-2-63.safetensors',st(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775808]}}'))
w('safetensors-shape-2-63.safetensors',st(b'{"a":{"dtype":"F32","shape":[9223372036854775808,4],"data_offsets":[0,0]}}'))
w('safetensors-same-name.safetensors',st(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}')+b'x')
w('safetensors-deep.safetensors',st(b'{"a":'+b'['*2000))
w('safetensors-overlap.safetensors',st(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}')+b'x'*6)
g=lambda t,k,rest: b'GGUF'+I(3)+q(t)+q(k)+rest
w('gguf-tensors-2-63.gguf',g(H,0,b''))
w('gguf-keys-2-63.gguf',g(0,H,b''))
w('gguf-text-2-63.gguf',g(0,1,q(H)+b'a'))
w('gguf-array-2-63.gguf',g(0,1,q(1)+b'a'+I(9)+I(8)+q(H)))
w('gguf-array-of-bytes-2-63.gguf',g(0,1,q(1)+b'a'+I(9)+I(0)+q(H)))
w('gguf-deep.gguf',g(0,1,q(1)+b'a'+I(9)+(I(9)+q(1))*300))
line=lambda n: q(len(n))+n+I(2)+q(2**32)+q(2**32)+I(0)+q(0)
w('gguf-shape-2-64.gguf',g(1,0,line(b't'))+bytes(64))
one=lambda n: q(len(n))+n+I(1)+q(4)+I(0)+q(0)
w('gguf-same-name.gguf',g(2,0,one(b't')+one(b't'))+bytes(64))
def varint(n):
    o=b''
    while True:
        b=n&127; n>>=7
        o+=bytes([b|(128 if n else 0)])
        if not n: return o
f=lambda k,v: varint(k<<3|2)+varint(len(v))+v
v=lambda k,n: varint(k<<3)+varint(n)
w('onnx-length-2-63.onnx',v(1,8)+varint(7<<3|2)+varint(H)+b'x')
def deep(n):
    b=b''
    for _ in range(n): b=f(1,f(5,f(6,b)))
    return b
w('onnx-deep.onnx',v(1,8)+f(7,deep(200)))
t=lambda name,d: f(5,v(1,d)+v(2,1)+f(8,name)+f(9,bytes(4)))
w('onnx-same-name.onnx',v(1,8)+f(7,t(b'w',1)+t(b'w',1)))
w('onnx-shape-2-63.onnx',v(1,8)+f(7,t(b'w',H)))
npy=lambda h: b'\x93NUMPY\x01\0'+struct.pack('<H',len(h))+h
w('npy-shape-2-63.npy',npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 9), }"))
w('npy-length.npy',b'\x93NUMPY\x02\0'+I(2**32-1)+b"{")
w('npy-deep.npy',npy(b"{'descr': "+b'['*500))
w('npy-same-key.npy',npy(b"{'descr': '<f4', 'descr': '<f4', 'shape': (1,), }"))
w('zip-length-2-63.npz',b'PK\x03\x04'+bytes(26)+b'PK\x01\x02'+bytes(16)+b'\xff'*8+bytes(18)+b'PK\x06\x06'+q(H)+bytes(12)+q(H)+q(H)+q(H)+q(H)+b'PK\x06\x07'+I(0)+q(76)+I(1)+b'PK\x05\x06'+bytes(4)+b'\xff'*12+bytes(2))
w('pickle-length-2-63.pkl',b'\x80\x04\x8e'+q(H)+b'x.')
w('pickle-text-2-63.pkl',b'\x80\x04\x8d'+q(2**63-1)+b'x.')
w('pickle-frame-2-63.pkl',b'\x80\x04\x95'+q(H)+b'cos\nsystem\n.')
w('pickle-ring.pkl',b']q\0h\0ah\0a.')
w('pickle-marks.pkl',b'('*4000+b'.')
w('pickle-tower.pkl',b']'*3000+b'a'*2999+b'.')
w('pickle-dups.pkl',b'N'+b'2'*4000+b't.')
w('pickle-memo-2-63.pkl',b'Np9223372036854775808\ng9223372036854775808\n.')
w('tflite-root.tflite',I(2**32-1)+b'TFL3')
w('tflite-ring.tflite',I(8)+b'TFL3'+struct.pack('<i',0)+bytes(8))
w('tflite-vector-2-31.tflite',I(20)+b'TFL3'+struct.pack('<HHHHH',10,8,0,0,4)+bytes(2)+struct.pack('<i',12)+I(4)+I(2**31)+bytes(8))
w('catboost-length.cbm',b'CBM1'+I(2**32-1)+bytes(8))
w('lightgbm-leaves-2-63.txt',b'tree\nversion=v4\nmax_feature_idx=1\n\nTree=0\nnum_leaves=9223372036854775808\nleaf_value=1\n\nend of trees\n')
w('lightgbm-ring.txt',b'tree\nversion=v4\nmax_feature_idx=0\nfeature_names=a\n\nTree=0\nnum_leaves=2\nnum_cat=0\nsplit_feature=0\nsplit_gain=1\nthreshold=0\ndecision_type=2\nleft_child=0\nright_child=0\nleaf_value=1 2\nleaf_weight=1 1\nleaf_count=1 1\ninternal_value=0\ninternal_weight=1\ninternal_count=1\nshrinkage=1\n\nend of trees\n')
w('lightgbm-features.txt',b'tree\nmax_feature_idx=65535\n\nend of trees\n')
w('xgboost-deep.json',b'{"learner":'+b'[{"a":'*700)
w('xgboost-ring.json',b'{"learner":{"gradient_booster":{"model":{"trees":[{"left_children":[0],"right_children":[0],"loss_changes":[1],"split_conditions":[1],"split_indices":[0],"sum_hessian":[1],"default_left":[0]}]}}}}')
w('xgboost-features-2-63.json',b'{"learner":{"learner_model_param":{"num_feature":"9223372036854775808"}}}')
w('xgboost-array-2-63.ubj',b'{L'+struct.pack('>q',7)+b'learner[$d#L'+struct.pack('>q',2**63-1))
w('xgboost-deep.ubj',b'{L'+struct.pack('>q',7)+b'learner'+b'['*3000)
w('skops-deep.skops',b'')
for name,doc in (('skops-deep.skops',b'{"a":'*400),('skops-same-key.skops',b'{"__class__":"A","__class__":"B","__module__":"m"}')):
    b=io.BytesIO(); z=zipfile.ZipFile(b,'w'); z.writestr('schema.json',doc); z.close(); w(name,b.getvalue())
b=io.BytesIO(); z=zipfile.ZipFile(b,'w',zipfile.ZIP_DEFLATED); z.writestr('schema.json',b' '*(80<<20)); z.close(); w('skops-bomb.skops',b.getvalue())
