package replica

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// serverName is what each node's certificate is for, whatever its address is: only nodes have one of their CA.
const serverName = "replica"

// certYears is how long certificates are valid.
const certYears = 10

// The files of a folder of certificates.
const (
	caFile   = "ca.pem"
	certFile = "node.pem"
	keyFile  = "node.key"
)

// WriteCerts makes a folder of certificates for each of the nodes, in dir, under the node's name. Each goes to its
// node, as Config.Certs. The key of their CA is kept nowhere: other nodes, or the same after ten years, need new
// folders for all. A folder that is there already is an error. The command "cluster certs" does this.
func WriteCerts(dir string, nodes ...string) error {
	if err := checkNames(nodes); err != nil {
		return err
	}
	for _, node := range nodes { // before some of them have another CA than the others
		folder := filepath.Join(dir, node)
		if _, err := os.Lstat(folder); err == nil {
			return fmt.Errorf("%s is there already: write the new certificates into another folder, or move that away", folder)
		}
	}
	return writeCerts(dir, time.Now().AddDate(certYears, 0, 0), nodes...)
}

func writeCerts(dir string, until time.Time, nodes ...string) error {
	ca := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "replica CA"},
		NotBefore: time.Unix(0, 0), NotAfter: until, // whatever a clock that is behind says, its node is heard
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caKey, caPEM, _, err := newCert(ca, ca, nil)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, node := range nodes {
		folder := filepath.Join(dir, node)
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		_, certPEM, keyPEM, err := newCert(&x509.Certificate{
			Subject: pkix.Name{CommonName: node}, NotBefore: ca.NotBefore, NotAfter: until, DNSNames: []string{serverName},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}, ca, caKey)
		if err != nil {
			return err
		}
		for file, content := range map[string][]byte{caFile: caPEM, certFile: certPEM, keyFile: keyPEM} {
			if err := os.WriteFile(filepath.Join(folder, file), content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// newCert makes a key and a certificate for it, which signs itself if there is no key of a parent.
func newCert(cert, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (key *ecdsa.PrivateKey, certPEM, keyPEM []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	if cert.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, nil, err
	}
	certDER, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// nameOf returns the name of the node at the other end.
func nameOf(connection *tls.ConnectionState) string {
	return connection.PeerCertificates[0].Subject.CommonName
}

// loadCerts returns what a node connects to others with, and lets them connect with.
func loadCerts(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	var content []byte
	if err == nil {
		content, err = os.ReadFile(filepath.Join(dir, caFile))
	}
	pool := x509.NewCertPool()
	if err == nil && !pool.AppendCertsFromPEM(content) {
		err = errors.New(caFile + " has no certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("the certificates in %s: %w: \"cluster certs\" makes a folder of them for each node, beside the data directory (--dir)", dir, err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool, ServerName: serverName,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}
